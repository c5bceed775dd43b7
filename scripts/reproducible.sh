#!/usr/bin/env bash
# Builds HEAD twice, in folders whose names differ in length too, and compares what would be shipped byte for byte.
#
#   reproducible.sh [FOLDER]     FOLDER keeps both builds, 3 GB, and what differs; a temporary one that is removed, if it is not given
#   QUICK=1                      without optimisation: finds names of folders and dates, not what only the optimiser would let differ
#
# Takes two builds of everything, so neither `make test` nor `make dist` runs it. Exit status: 0 all is equal; 1 something differs.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    home=$(realpath "$1")
else
    home=$(mktemp -d)
    trap 'rm -rf "$home"' EXIT
fi
say() { echo "reproducible: $*" >&2; }
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
# The Makefile says what becomes of the names of folders; variables of a make that started this would say it again.
unset MAKEFLAGS MAKELEVEL MFLAGS RUSTFLAGS CARGO_TARGET_DIR TE_GLIBC

built=target/portable target=portable
if [ -n "${QUICK:-}" ]; then
    built=target/debug target=quick
    export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_STRIP=debuginfo
fi
# The Makefile as it is, and the quick build with all that it exports.
rules='include Makefile
quick: deps
	cargo build --locked
	@scripts/archive.sh target/debug'

folders=(one another/folder/with-a-longer-name)
for folder in "${folders[@]}"; do
    rm -rf "${home:?}/$folder"
    git clone -q . "$home/$folder"
    say "building in $home/$folder"
    make --no-print-directory -C "$home/$folder" -f - "$target" <<<"$rules" >"$home/log" 2>&1 || { tail -n 20 "$home/log" >&2; say "the build failed; all it said is in $home/log"; exit 1; }
done

status=0
for file in libtransfer_engine.so libtransfer_engine.a mte; do
    a=$home/${folders[0]}/$built/$file b=$home/${folders[1]}/$built/$file
    if cmp -s "$a" "$b"; then
        echo "$(sha256sum <"$a" | cut -c 1-64)  $file"
    else
        status=1
        say "$file differs: $({ cmp -l "$a" "$b" || true; } 2>/dev/null | wc -l) bytes; texts that only one of them has:"
        { diff <(strings "$a" | sort -u) <(strings "$b" | sort -u) || true; } | grep '^[<>]' | head -n 10 >&2 || true
    fi
done
exit "$status"
