#!/usr/bin/env bash
# Installs what building and testing need and the machine lacks. Says nothing when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
minimum_cargo=1.85
PATH=$PATH:/usr/sbin:/sbin

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

packages=()
need_program() { command -v "$1" >/dev/null || packages+=("$2"); }
# Asked of the linker and not of dpkg: package names differ between releases (libcurl4, libcurl4t64).
libraries=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p)
need_library() { [[ $libraries == *"$1"* ]] || packages+=("$2"); }

need_program gcc gcc
need_program g++ g++
need_program make make
need_program pkg-config pkg-config
need_program python3 python3
need_program valgrind valgrind
need_program curl curl
scripts/venv.sh --check 2>/dev/null || packages+=(python3-venv)
# What the programs of upstream's wheel link to and the wheel does not bring.
need_library libibverbs.so.1 libibverbs1
need_library librdmacm.so.1 librdmacm1
need_library libnuma.so.1 libnuma1
need_library libcurl.so.4 libcurl4
# What rdma-sys generates its bindings from, and with.
need_file() { [ -e "$1" ] || packages+=("$2"); }
need_file /usr/include/infiniband/verbs.h libibverbs-dev
need_file /usr/include/rdma/rdma_cma.h librdmacm-dev
compgen -G '/usr/lib/llvm-14/lib/libclang*.so*' >/dev/null || packages+=(libclang1-14)
compgen -G '/usr/lib/llvm-14/lib/clang/*/include/stddef.h' >/dev/null || packages+=(libclang-common-14-dev)
# What etcd-client generates its messages with, and the stores that the tests start.
need_program protoc protobuf-compiler
need_program etcd etcd-server
need_program redis-server redis-server
need_program openssl openssl
# The guest that the RDMA tests run in.
need_program qemu-system-x86_64 qemu-system-x86
need_program busybox busybox-static
need_program depmod kmod
need_program cpio cpio
need_program ip iproute2
need_program iptables iptables
need_program ib_write_bw perftest
need_file /etc/libibverbs.d/rxe.driver ibverbs-providers

if [ ${#packages[@]} -gt 0 ]; then
    echo "deps: installing ${packages[*]} with apt: the C compilers, Python, valgrind and upstream's libraries are needed to build and test."
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates "${packages[@]}" >/dev/null
fi

cargo_is_new_enough() {
    local version
    version=$(cargo --version 2>/dev/null) || return 1
    version=${version#cargo }
    printf '%s\n%s\n' "$minimum_cargo" "${version%% *}" | sort -V -C
}

if ! cargo_is_new_enough; then
    echo "deps: installing Rust with rustup's official script, because no cargo of version $minimum_cargo or later was found."
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --no-modify-path --profile minimal -c rustfmt -c clippy
elif ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    echo "deps: adding rustfmt and clippy, which 'make test' runs."
    rustup component add rustfmt clippy
fi
