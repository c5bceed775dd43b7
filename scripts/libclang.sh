#!/usr/bin/env bash
# Sees to target/libclang/lib: a libclang that rdma-sys' bindgen 0.59 can use, under the name that it looks for, with the
# compiler's own headers where that libclang looks for them. The Makefile sets LIBCLANG_PATH to it.
#
#   libclang.sh find     takes the first usable one of this machine ($LIBCLANG_PATH first), else says why none is
#   libclang.sh fetch    gets version 14 from PyPI into target/, for systems without LLVM 14, and takes that
set -euo pipefail
cd "$(dirname "$0")/.."
release=14.0.6 # of LLVM; the newest on PyPI that bindgen 0.59 can use
home=target/libclang
wheel=target/libclang-$release

headers='#include <stddef.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
struct libclang_try { union { int a; float b; }; };'

works() { # LIBRARY: tries it with the paths that rdma-sys gives
    local paths
    paths=$(pkg-config --cflags-only-I libibverbs librdmacm 2>/dev/null || true)
    # shellcheck disable=SC2086
    "$work/try" "$1" "$work/try.h" $paths -I/usr/include
}

# The files that bindgen would consider, by its names; libclang-cpp is another library.
candidates() {
    local folder
    for folder in "${LIBCLANG_PATH:-}" "$(llvm-config --libdir 2>/dev/null || true)" /usr/lib/llvm-1[45]/lib /usr/lib/llvm-*/lib \
        /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib "$wheel"/lib/python3*/site-packages/clang/native; do
        [ -n "$folder" ] || continue
        if [ -f "$folder" ]; then realpath "$folder"; continue; fi
        compgen -G "$folder/libclang.so" || compgen -G "$folder/libclang.so.*" || compgen -G "$folder/libclang-*.so*" || true
    done | grep -v -e -cpp | awk '!seen[$0]++'
}

# Lays LIBRARY out under $home: with the headers beside it, else with those of the C compiler.
lay_out() { # LIBRARY
    local library version
    library=$(realpath -s "$1")
    rm -rf "$home.new"
    mkdir -p "$home.new/lib"
    ln -s "$library" "$home.new/lib/libclang.so"
    if [ -d "$(dirname "$library")/clang" ]; then
        ln -s "$(dirname "$library")/clang" "$home.new/lib/clang"
    else
        version=$(strings_version "$home.new/lib/libclang.so")
        mkdir -p "$home.new/lib/clang/$version"
        ln -s "$(cc -print-file-name=include)" "$home.new/lib/clang/$version/include"
    fi
    rm -rf "$home"
    mv "$home.new" "$home"
}
strings_version() { # LIBRARY: its version, asked without any header
    echo 'struct libclang_try { union { int a; float b; }; };' >"$work/plain.h"
    "$work/try" "$1" "$work/plain.h" 2>&1 | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1
}

find() {
    local library
    mkdir -p target
    if [ -z "${LIBCLANG_PATH:-}" ] && [ -e "$home/lib/libclang.so" ] && works "$PWD/$home/lib/libclang.so" >/dev/null 2>&1; then return; fi
    while read -r library; do
        lay_out "$library"
        if works "$PWD/$home/lib/libclang.so" >"$work/said" 2>&1; then return; fi
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
