#!/usr/bin/env bash
# Runs a command as root in a throw-away QEMU guest that has soft-RoCE devices (rdma_rxe): real verbs without a NIC or KVM.
#
#   guest.sh [-n NICS] [-t SECONDS] [-o FOLDER] [-m MIB] [-c CPUS] [--] COMMAND [ARGUMENT...]
#   guest.sh --prepare        only fetches the kernel and builds the initrd
#
#   -n   devices rxe0.. on NICs nic0.., each in a subnet of its own (2)
#   -t   limit for the guest, boot included (300)
#   -o   folder that the guest sees, writable, as /out; console.log goes there (a temporary one, removed)
#   -m   memory of the guest (2048)    -c   its processors (2)
#
# The command runs in the caller's folder and sees the host's files under an overlay: it may write anywhere, but only what
# it writes to /out stays. PATH and HOME are passed on, other variables with `env NAME=VALUE COMMAND`.
# One guest runs at a time: a second caller waits.
#
# Exit status: the command's; 124 out of time; 125 the guest died; 126 it could not be set up; 77 this machine cannot run it.
# RXE_ACCEL names QEMU's accelerator where another than "tcg,thread=multi" works.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cache=${CARGO_TARGET_DIR:-$top/target}/rxe
PATH=$PATH:/usr/sbin:/sbin

say() { echo "guest.sh: $*" >&2; }
die() { say "$@"; exit 126; }
skip() { say "SKIP: $*"; exit 77; }

nics=2 limit=300 out='' memory=2048 cpus=2 only_prepare=''
while [ $# -gt 0 ]; do
    case $1 in
    -n) nics=$2; shift 2 ;;
    -t) limit=$2; shift 2 ;;
    -o) out=$2; shift 2 ;;
    -m) memory=$2; shift 2 ;;
    -c) cpus=$2; shift 2 ;;
    --prepare) only_prepare=1; shift ;;
    --) shift; break ;;
    -*) sed -n '2,/^set /p' "$0" | grep '^#' >&2; exit 126 ;;
    *) break ;;
    esac
done
[ -n "$only_prepare" ] || [ $# -gt 0 ] || die "no command"

[ "$(uname -sm)" = "Linux x86_64" ] || skip "the guest is built from Debian's amd64 kernel, and this machine is $(uname -sm)"
for tool in qemu-system-x86_64 busybox depmod modprobe cpio dpkg-deb apt-get flock; do
    command -v "$tool" >/dev/null || skip "$tool is not installed (make deps)"
done
if ldd "$(command -v busybox)" >/dev/null 2>&1; then skip "busybox is not the static one (busybox-static)"; fi

mkdir -p "$cache" || die "cannot make $cache"
cache=$(cd "$cache" && pwd)
# The lock also keeps guests apart: two of them would starve each other of processors, and their deadlines would mean nothing.
exec {lock}>"$cache/lock"
flock "$lock"

. "$here/image.sh"
make_image "$cache/image"
[ -z "$only_prepare" ] || exit 0

temporary=
if [ -z "$out" ]; then
    out=$(mktemp -d "${TMPDIR:-/tmp}/rxe-out.XXXXXX")
    temporary=$out
fi
trap '[ -z "$temporary" ] || rm -rf "$temporary"' EXIT
mkdir -p "$out" || die "cannot make $out"
out=$(cd "$out" && pwd)
control=$out/.control
rm -rf "$control"
mkdir "$control"

{
    printf 'export PATH=%q HOME=%q TMPDIR=/tmp\n' "$PATH" "$HOME"
    printf 'cd %q || exit 126\nexec' "$PWD"
    printf ' %q' "$@"
    echo
} >"$control/command.sh"
printf 'NICS=%q MODULES=%q NICS_SCRIPT=%q\n' "$nics" "$cache/image/lib/modules" "$here/guest/nics.sh" >"$control/settings.sh"
cp "$here/guest/pid1.sh" "$control/"

qemu=(qemu-system-x86_64 -accel "${RXE_ACCEL:-tcg,thread=multi}" -cpu max -m "$memory" -smp "$cpus"
    -nodefaults -no-user-config -display none -no-reboot -nic none
    -kernel "$cache/image/vmlinuz" -initrd "$cache/image/initrd.gz"
    -append "console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0"
    -serial "file:$out/console.log" -serial stdio
    -virtfs "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"
    -virtfs "local,path=$out,mount_tag=out,security_model=none,multidevs=remap"
    -device virtio-rng-pci)
ended=0
timeout --foreground --kill-after=10 "$limit" "${qemu[@]}" </dev/null || ended=$?

if [ -s "$control/status" ]; then
    status=$(cat "$control/status")
    rm -rf "$control"
    exit "$status"
fi
tail -n 20 "$out/console.log" >&2 || true
case $ended in
124 | 137) say "out of time after $limit s"; exit 124 ;;
*) say "the guest ended without a status (QEMU: $ended)"; exit 125 ;;
esac
