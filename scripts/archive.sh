#!/usr/bin/env bash
# Makes of the static library that cargo builds one that links anywhere: beside other Rust libraries, of other toolchains too.
#
#   archive.sh [FOLDER]     FOLDER is target/release
#
# Cargo's archive has Rust's own run-time in it, whose global symbols (rust_eh_personality, …) every Rust archive has. Here all
# of it becomes one object: what no exported function needs is dropped, and only those functions stay global, namely what
# libtransfer_engine.so of the same build exports. Bitcode and debugging information go too, most of its bytes. Sections stay
# apart, so a program's --gc-sections works on it.
# FOLDER/libtransfer_engine.a is replaced. Cargo puts its own there again with each build, so run this after each.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-target/release}
raw=$folder/deps/libtransfer_engine.a
so=$folder/libtransfer_engine.so
out=$folder/libtransfer_engine.a
home=$folder/archive
done=$home/libtransfer_engine.a
for file in "$raw" "$so"; do [ -f "$file" ] || { echo "archive: $file is missing: run 'make build'" >&2; exit 1; }; done

make_it() {
    local ld work
    work=$(mktemp -d)
    trap 'rm -rf "$work"' RETURN
    # Of the linkers that may be called ld, only that of binutils can do this.
    ld=$(command -v ld.bfd || command -v ld)
    nm -D --defined-only --format=posix "$so" | sed 's/ .*//' >"$work/exported"
    [ -s "$work/exported" ] || { echo "archive: $so exports nothing" >&2; return 1; }
    sed 's/^/--undefined=/' "$work/exported" >"$work/roots"
    # With their groups kept, the copies that C++ and Rust share by name would be merged with those of other objects.
    "$ld" -r --force-group-allocation --gc-sections "@$work/roots" --whole-archive "$raw" -o "$work/transfer_engine.o"
    objcopy --remove-section=.llvmbc --remove-section=.llvmcmd --strip-debug --keep-global-symbols="$work/exported" "$work/transfer_engine.o"
    objcopy --strip-unneeded "$work/transfer_engine.o"
    mkdir -p "$home"
    ar rcsD "$work/libtransfer_engine.a" "$work/transfer_engine.o"
    mv "$work/libtransfer_engine.a" "$done.new" # another file system's, perhaps
    mv "$done.new" "$done"
}

[ "$done" -nt "$raw" ] && [ "$done" -nt "$so" ] && [ "$done" -nt scripts/archive.sh ] || make_it
# Never written in place: cargo's name in deps/ may be the same file.
[ "$out" -ef "$done" ] || { ln -f "$done" "$out.new" && mv "$out.new" "$out"; }
