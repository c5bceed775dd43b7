#!/usr/bin/env bash
# Builds both Python wheels: mooncake-te with the library and mte inside, and mooncake-te-compat.
#
#   wheel.sh LIBRARY MTE FOLDER
#
# The native wheel's tag is what the two files need (python/hatch_build.py); auditwheel has to agree, or this fails.
set -euo pipefail
cd "$(dirname "$0")/.."
library=$(realpath -e "$1") tool=$(realpath -e "$2")
mkdir -p "$3"
out=$(realpath "$3")
python=$PWD/target/pyvenv/bin/python

rm -f "$out"/mooncake_te-*.whl "$out"/mooncake_te_compat-*.whl
for package in mooncake-te mooncake-te-compat; do
    (cd "python/$package" && MTE_LIB=$library MTE_TOOL=$tool "$python" -m hatchling build -t wheel -d "$out" >/dev/null)
done

native=$(echo "$out"/mooncake_te-*.whl)
said=$("$python" -m auditwheel show "$native" 2>&1)
tag=$(sed -E 's/.*-(manylinux_[^-]*)\.whl/\1/' <<<"$native")
found=$(tr '\n' ' ' <<<"$said" | sed -nE 's/.*platform tag: "([^"]*)".*/\1/p')
# auditwheel knows only some versions of glibc, so it may name a later one than is needed, never an earlier one.
version() { sed -nE 's/manylinux_([0-9]+)_([0-9]+)_.*/\1.\2/p' <<<"$1"; }
if [ -z "$(version "$found")" ] || ! printf '%s\n' "$(version "$tag")" "$(version "$found")" | sort -V -C; then
    echo "wheel.sh: the wheel is called $tag, auditwheel finds:"$'\n'"$said" >&2
    exit 1
fi
echo "$native"
echo "$out"/mooncake_te_compat-*.whl
