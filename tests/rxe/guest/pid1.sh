# The guest after its initrd: NICs, RDMA devices, then the command. What happens here is logged on ttyS0 (console.log);
# the command alone speaks on ttyS1, which is the standard output of guest.sh.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
. /out/.control/settings.sh
. "$NICS_SCRIPT"
control=/out/.control

power_off() { # STATUS
    echo "$1" >$control/status
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}

version=$(uname -r)
mkdir -p /lib/modules
[ -d "/lib/modules/$version" ] || ln -s "$MODULES/$version" "/lib/modules/$version"
echo /sbin/modprobe >/proc/sys/kernel/modprobe
# What udev would make.
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
hostname rxe-guest
ulimit -l unlimited
ulimit -n 65536
ulimit -c 0

ip link set lo up
ip netns add fabric || power_off 126
ip -n fabric link set lo up
ip netns exec fabric sysctl -qw net.ipv4.ip_forward=1
# All addresses belong to one host: packets between them must leave it and come back all the same.
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
    net.ipv4.conf.all.accept_local=1 net.ipv4.conf.default.accept_local=1 \
    net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
# A target that starts again takes the port of its predecessor, which must not wait there for a minute.
sysctl -qw net.ipv4.tcp_max_tw_buckets=0

for ((i = 0; i < NICS; i++)); do add_nic $i || power_off 126; done
for ((i = 0; i < NICS; i++)); do add_routes $i && add_device $i || power_off 126; done
for ((tries = 0; tries < 100; tries++)); do
    [ "$(compgen -G '/dev/infiniband/uverbs*' | wc -l)" -ge "$NICS" ] && break
    sleep 0.1
done
rdma link
echo "guest up after $(cut -d' ' -f1 /proc/uptime) s"

stty -F /dev/ttyS1 raw -echo
status=0
setsid bash $control/command.sh </dev/ttyS1 >/dev/ttyS1 2>&1 || status=$?
power_off "$status"
