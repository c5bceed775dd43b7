# Sourced in the guest: its NICs, and faults on them. NICS is how many there are.
#
# NIC i is the veth nic<i> with 10.77.<i>.1/24 and the device rxe<i>; its other end sw<i> is in the network namespace
# "fabric", which routes between the subnets. So each device reaches each other one over a wire on which faults can be set.

add_nic() { # I
    # 4200: room for RoCE's 4096-byte MTU.
    ip link add "nic$1" mtu 4200 type veth peer name "sw$1" mtu 4200 netns fabric &&
        ip link set "nic$1" up && ip addr add "10.77.$1.1/24" dev "nic$1" &&
        ip -n fabric addr add "10.77.$1.254/24" dev "sw$1" && ip -n fabric link set "sw$1" up
}

# rxe looks a route up through its own NIC, so each one needs its own to every other subnet. They vanish with link and address.
routes() { # I
    local other
    for ((other = 0; other < NICS; other++)); do
        [ "$1" = "$other" ] || echo "route replace 10.77.$other.0/24 via 10.77.$1.254 dev nic$1 metric $((100 + $1))"
    done
}

add_routes() { routes "$1" | ip -batch -; } # I

add_device() { # I
    rdma link add "rxe$1" type rxe netdev "nic$1"
}

# Faults leave a mark, so that what is whole need not be healed.
broken() { : >/run/broken; }

link_down() { broken; ip link set "nic$1" down; }
link_up() { ip link set "nic$1" up && add_routes "$1"; }
cable_down() { broken; ip -n fabric link set "sw$1" down; }
cable_up() { ip -n fabric link set "sw$1" up; }

# The GID goes with the address and comes back at another index.
address_gone() { broken; ip addr del "10.77.$1.1/24" dev "nic$1"; }
address_back() { ip addr add "10.77.$1.1/24" dev "nic$1" && add_routes "$1"; }

lose() { # I PERCENT: of what arrives at NIC I
    broken
    ip netns exec fabric tc qdisc replace dev "sw$1" root netem loss "$2%"
}
lose_nothing() { ip netns exec fabric tc qdisc del dev "sw$1" root; }

# Drops RoCE. What NIC I sends, before it leaves (the sender gets no completion at all):
drop_sent() { broken; iptables -A OUTPUT -o "nic$1" -p udp --dport 4791 -j DROP; }
# What arrives at NIC I:
drop_received() { broken; iptables -A INPUT -i "nic$1" -p udp --dport 4791 -j DROP; }
# What comes from NIC I, on its way:
drop_forwarded() { broken; ip netns exec fabric iptables -A FORWARD -i "sw$1" -p udp --dport 4791 -j DROP; }
drop_nothing() { iptables -F && ip netns exec fabric iptables -F; }

# The command itself ends only when every process has closed the RDMA device.
remove_nic() { # I
    broken
    ip link del "nic$1" &
    while [ -e "/sys/class/net/nic$1" ]; do nap; done
}

# Brings everything back to how it was at start; the processes that held devices must be gone. Starting a program takes
# long in an emulated machine, hence the batches.
heal() {
    local i there
    [ -e /run/broken ] || return 0
    drop_nothing
    for ((i = 0; i < NICS; i++)); do
        [ -e "/sys/class/net/nic$i" ] || add_nic "$i" || return
    done
    for ((i = 0; i < NICS; i++)); do echo "qdisc del dev sw$i root"; done | tc -n fabric -force -batch - 2>/dev/null
    for ((i = 0; i < NICS; i++)); do echo "link set sw$i up"; done | ip -n fabric -batch - || return
    there=$(ip -4 -o addr show)
    for ((i = 0; i < NICS; i++)); do
        echo "link set nic$i up"
        [[ $there == *" 10.77.$i.1/"* ]] || echo "addr add 10.77.$i.1/24 dev nic$i"
    done | ip -batch - || return
    for ((i = 0; i < NICS; i++)); do
        [ -e "/sys/class/infiniband/rxe$i" ] || add_device "$i" || return
        routes "$i"
    done | ip -batch - || return
    rm -f /run/broken
}
