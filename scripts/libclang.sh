#!/usr/bin/env bash
# Lays out target/libclang: lib has a libclang that rdma-sys' bindgen 0.59 can use, under the name that it looks for;
# include has the C compiler's own headers where that libclang came without any. The Makefile tells bindgen both paths.
#
#   libclang.sh find     takes the first usable one of this machine ($LIBCLANG_PATH first), else says why none is
#   libclang.sh fetch    gets version 14 from PyPI into target/, for systems without LLVM 14, and takes that
set -euo pipefail
cd "$(dirname "$0")/.."
release=14.0.6 # of LLVM; the newest on PyPI that bindgen 0.59 can use
home=$PWD/target/libclang
wheel=target/libclang-$release

headers='#include <stddef.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
struct libclang_try { union { int a; float b; }; };'

# Tries what is laid out, with the paths that rdma-sys and the Makefile give.
works() {
    local paths
    paths=$(pkg-config --cflags-only-I libibverbs librdmacm 2>/dev/null || true)
    # shellcheck disable=SC2086
    "$work/try" "$home/lib/libclang.so" "$work/try.h" $paths -I/usr/include -isystem "$home/include" >"$work/said" 2>&1
}

# The files that bindgen would consider, by its names; libclang-cpp is another library.
candidates() {
    local folder name
    for folder in "${LIBCLANG_PATH:-}" "$(llvm-config --libdir 2>/dev/null || true)" /usr/lib/llvm-1[45]/lib /usr/lib/llvm-*/lib \
        /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib "$wheel"/lib/python3*/site-packages/clang/native; do
        [ -n "$folder" ] || continue
        if [ -f "$folder" ]; then realpath "$folder"; continue; fi
        for name in libclang.so 'libclang.so.*' 'libclang-*.so*'; do compgen -G "$folder/$name" || true; done
    done | grep -v -e -cpp | awk '!seen[$0]++'
}

lay_out() { # LIBRARY
    rm -rf "$home"
    mkdir -p "$home/lib" "$home/include"
    ln -s "$(realpath -s "$1")" "$home/lib/libclang.so"
}

find() {
    local library
    if [ -z "${LIBCLANG_PATH:-}" ] && [ -e "$home/lib/libclang.so" ] && works; then return; fi
    while read -r library; do
        lay_out "$library"
        works && return
        # The wheel of PyPI has the library and no headers; gcc's do for what is read here.
        rmdir "$home/include" && ln -s "$(cc -print-file-name=include)" "$home/include"
        works && return
        echo "$library: $(head -n 1 "$work/said")"
    done < <(candidates)
    rm -rf "$home"
    echo "no libclang.so, libclang.so.* or libclang-*.so* that bindgen 0.59 can use"
    return 1
}

fetch() {
    echo "deps: getting libclang $release from PyPI into $wheel" >&2
    python3 -m venv --clear "$wheel"
    "$wheel/bin/pip" install --quiet --disable-pip-version-check "libclang==$release"
    find
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '%s\n' "$headers" >"$work/try.h"
cc -O1 -o "$work/try" scripts/libclang.c -ldl
"$1"
