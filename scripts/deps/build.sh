# Sourced by deps.sh: what building the libraries and the C examples needs.
minimum_cargo=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

compiles() { cat >"$work/try.$1" && "${@:2}" -o "$work/try" "$work/try.$1"; }

try_cc() { compiles c cc <<<'int main(void) { return 0; }' && "$work/try"; }
need cc "gcc libc6-dev" - "linking Rust and compiling the C examples"

# What is shipped is linked to stand-ins for an older C library, which are made of this machine's.
try_glibc() { scripts/glibc.sh; }
need glibc binutils cc "what is linked to run on glibc 2.28, and a static library that links anywhere"

try_pkgconfig() { pkg-config --version; }
need pkgconfig "pkg-config" - "the build script of rdma-sys"

# A package may bring the program without the files that every .proto of etcd imports.
try_protoc() {
    printf 'syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\nmessage M { google.protobuf.FileOptions f = 1; }\n' >"$work/try.proto"
    "${PROTOC:-protoc}" -I"$work" --descriptor_set_out="$work/try.pb" "$work/try.proto"
}
need protoc "protobuf-compiler libprotobuf-dev" - "generating etcd's messages"

# The versions are those that rdma-sys asks for.
links_with() { # LIBRARY VERSION HEADER
    pkg-config --print-errors --exists "$1 >= $2" || return 1
    # shellcheck disable=SC2046
    compiles c cc $(pkg-config --cflags "$1") <<<"#include <$3>
int main(void) { return 0; }" -Wl,--no-as-needed $(pkg-config --libs "$1") && "$work/try"
}
try_ibverbs() { links_with libibverbs 1.8.28 infiniband/verbs.h; }
try_rdmacm() { links_with librdmacm 1.2.28 rdma/rdma_cma.h; }
need ibverbs libibverbs-dev "cc pkgconfig" "the RDMA transport"
need rdmacm librdmacm-dev "cc pkgconfig" "rdma-sys, which the RDMA transport takes its types from"

# rdma-sys generates its bindings with it. Where apt has no version that its bindgen can use, PyPI has one.
try_libclang() { scripts/libclang.sh find; }
fix_libclang() { scripts/libclang.sh fetch; }
libclang_packages() {
    if [ -n "$(apt-cache --quiet=0 policy libclang1-14 2>/dev/null | sed -n 's/ *Candidate: *\([0-9].*\)/\1/p')" ]; then
        echo libclang1-14 libclang-common-14-dev
    else
        echo python3 python3-venv
    fi
}
need libclang libclang_packages "cc pkgconfig ibverbs rdmacm" "generating the RDMA bindings (version 14; Python gets it from PyPI where apt has none)"

try_cargo() {
    local version
    version=$(cargo --version) || return 1
    version=${version#cargo }
    printf '%s\n%s\n' "$minimum_cargo" "${version%% *}" | sort -V -C || { echo "cargo is ${version%% *}, and $minimum_cargo is the oldest that does"; return 1; }
}
# Debian's cargo is too old; rustup's own script is the official way.
fix_cargo() {
    command -v curl >/dev/null || return 1
    say "installing Rust with rustup's official script, below ${CARGO_HOME:-$HOME/.cargo}"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --no-modify-path --profile minimal -c rustfmt -c clippy
}
need cargo "curl ca-certificates" - "everything"
