#!/usr/bin/env bash
# A stranger's machine, made on this one: runs a command in a clean clone of HEAD on a minimal Debian (git and make, root
# without sudo, nothing else but this machine's Rust toolchain), so that a missing install step shows.
#
#   [SUITE=bookworm] [KEEP=1] fresh.sh [COMMAND...]     default: make demo
#
# The room is a chroot that debootstrap makes, kept as a base below $XDG_CACHE_HOME (~/.cache) and copied for each run. How
# this machine reaches the network (mirror, proxies, certificate authorities, registries) is taken over into it.
#   SUITE      another release of Debian, such as trixie
#   MIRROR     where to get it; the one that apt uses here, or deb.debian.org
#   KEEP=1     keeps the room and prints its path
# Needs root: chroot and mounts. Exit status: the command's, or 125 when the room cannot be made.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
suite=${SUITE:-bookworm}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/transfer-engine/fresh
PATH=$PATH:/usr/sbin:/sbin
[ $# -gt 0 ] || set -- make demo

say() { echo "fresh: $*" >&2; }
die() { say "$@"; exit 125; }

mkdir -p "$cache"
exec {lock}>"$cache/lock" # another suite may be tried at the same time
[ "$(id -u)" = 0 ] || die "making a room takes root (chroot, mount): run it as root or with 'sudo -E make fresh'"
flock "$lock"
if ! command -v debootstrap >/dev/null; then
    command -v apt-get >/dev/null || die "debootstrap is missing: install it with this system's package manager"
    say "installing debootstrap with apt"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap; } >/dev/null || die "apt-get cannot install debootstrap"
fi
flock -u "$lock"

# The first archive of Debian among apt's sources.
mirror() {
    local found
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 -E '/debian/?$' || true)
    echo "${MIRROR:-${found:-http://deb.debian.org/debian}}"
}

# What apt, pip and cargo of this machine are told about the network; a file that is not here is not there either.
take_over_network() { # ROOM
    local file
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do [ ! -e "$file" ] || cp -L "$file" "$1$file"; done
    apt-config dump 2>/dev/null | grep -E '^Acquire::(https?::|Check-|Retries)' | grep -v Proxy-Auto-Detect >"$1/etc/apt/apt.conf.d/90host" || true
    cp -r /etc/apt/auth.conf.d "$1/etc/apt/" 2>/dev/null || true
    mkdir -p "$1/root/.cargo"
    cp -L "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$1/root/.cargo/" 2>/dev/null || true
    cp -rL /usr/local/share/ca-certificates "$1/usr/local/share/" 2>/dev/null || true
    chroot "$1" /usr/sbin/update-ca-certificates >/dev/null 2>&1 || die "the room's certificate authorities cannot be set up"
}

make_base() { # FOLDER
    local url log=$cache/debootstrap-$suite.log
    url=$(mirror)
    say "making a minimal Debian $suite from $url"
    rm -rf --one-file-system "$1" "$1.new"
    mkdir -p "$1.new"
    debootstrap --variant=minbase --include=ca-certificates,git,make "$suite" "$1.new" "$url" >"$log" 2>&1 || { tail -n 5 "$log" >&2; die "debootstrap failed; all of it is in $log"; }
    rm -f "$1.new"/var/cache/apt/archives/*.deb
    mv "$1.new" "$1" # complete or not there
}

base=$cache/$suite
[ -d "$base" ] || make_base "$base"
room=$(mktemp -d "$cache/room.XXXXXX")
clean_up() { if [ -n "${KEEP:-}" ]; then say "kept $room"; else rm -rf --one-file-system "$room"; fi; }
trap clean_up EXIT
trap 'exit 130' INT TERM
cp -a --reflink=auto "$base/." "$room/"
take_over_network "$room"
# The checkout may be another user's than root's.
GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' git clone -q --no-hardlinks "$top" "$room/src/transfer-engine" || die "git cannot clone $top"

# The compiler alone, without rustup and what cargo was extended by. Where it belongs to the system, the room gets its own.
rust=$(rustc --print sysroot 2>/dev/null || true)
[ -x "$rust/bin/cargo" ] && [ "$rust" != /usr ] || rust=
mkdir -p "$room/opt/rust"

inside='
    set -e
    mount --make-rprivate /
    mount -t proc proc "$room/proc"
    mount --rbind /dev "$room/dev"
    mount --rbind /sys "$room/sys"
    if [ -n "$rust" ]; then mount --bind "$rust" "$room/opt/rust"; mount -o remount,bind,ro "$room/opt/rust"; fi
    authorities=/etc/ssl/certs/ca-certificates.crt
    passed=()
    while IFS= read -r -d "" pair; do
        [[ $pair =~ ^(https?_proxy|HTTPS?_PROXY|all_proxy|ALL_PROXY|no_proxy|NO_PROXY|PIP_(EXTRA_)?INDEX_URL|PIP_DEFAULT_TIMEOUT|CARGO_(NET|SOURCE|REGISTR)[A-Z_]*)= ]] && passed+=("$pair")
    done < <(env -0)
    exec chroot "$room" /usr/bin/env -i HOME=/root USER=root TERM=dumb LANG=C.UTF-8 \
        PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        SSL_CERT_FILE=$authorities CARGO_HTTP_CAINFO=$authorities PIP_CERT=$authorities "${passed[@]}" \
        /bin/sh -c "cd /src/transfer-engine && exec \"\$@\"" sh "$@"
'
say "running '$*' on a new Debian $suite, in a clone of $(git rev-parse --short HEAD 2>/dev/null || echo HEAD)"
SECONDS=0 status=0
# Mounts and processes end with this namespace.
room=$room rust=$rust unshare --mount --pid --fork --kill-child bash -c "$inside" inside "$@" </dev/null || status=$?
say "'$*' on Debian $suite ended with $status after $SECONDS s"
exit "$status"
