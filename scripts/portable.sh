#!/usr/bin/env bash
# Lays out target/portable: the libraries and mte as they are shipped (packages, wheels), without symbols that nobody needs at
# run time. Fails if one of them asks for a newer glibc than 2.28 (scripts/glibc.sh) or for any other library than C's.
set -euo pipefail
cd "$(dirname "$0")/.."
newest=2.28
out=target/portable

# The symbols of a file that need a later version of glibc, and the libraries that a system may lack.
foreign() {
    objdump -T "$1" | sed -nE 's/.*[ (]GLIBC_([0-9.]+)\)? +([^ ]+)$/\1 \2/p' | while read -r version symbol; do
        printf '%s\n%s\n' "$version" "$newest" | sort -V -C || echo "$symbol of glibc $version"
    done
    readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -vE '^(lib(c|m|pthread|dl|rt|util|gcc_s)\.so\.[0-9]+|ld-linux.*)$' || true
}

rm -rf "$out"
mkdir -p "$out"
for file in libtransfer_engine.so mte; do
    strip --strip-unneeded -o "$out/$file" "target/release/$file"
    found=$(foreign "$out/$file")
    [ -z "$found" ] || { echo "portable: $file needs more than glibc $newest:"$'\n'"$found" >&2; exit 1; }
done
cp target/release/libtransfer_engine.a "$out/"
cp -r target/release/share "$out/"
