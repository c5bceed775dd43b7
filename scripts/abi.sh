#!/usr/bin/env bash
# Compares the C interface with that of the last release, which release/abi-VERSION.* has.
#
#   abi.sh check [LIBRARY [INCLUDE]]     fails if a function, a type, a value or a symbol of it is gone or different; new ones are fine
#   abi.sh record                        makes the record of the version in Cargo.toml: a step of a release
#
# A library of Rust has no types of C in its debugging information, and what is shipped has none at all: abidiff sees nothing but the
# names of functions in it. So the types come from the headers: each declared function becomes an empty one, compiled with debugging
# information, and abidiff compares that. The records:
#   .abi        functions and types of the headers, by abidw
#   .macros     values of macros, which no debugging information has: error codes, states
#   .symbols    what the shared library exports
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "abi: $*" >&2; exit 1; }
headers='error.h transfer_engine_c.h transfer_engine_ext.h transfer_engine_tokenspeed.h'

# From INCLUDE to $work/interface.so and $work/macros.
interface() {
    local include
    include=$(realpath "$1")
    for header in $headers; do echo "#include \"$header\""; done >"$work/all.h"
    cc -E -P -I"$include" "$work/all.h" >"$work/all.i"
    # Macros of these headers, without those that system headers have and those that only guard.
    for header in $headers; do sed -nE 's/^#define[[:space:]]+([A-Za-z_0-9]+)[[:space:]].+/\1/p' "$include/$header"; done | sort -u >"$work/names"
    cc -E -dM -I"$include" "$work/all.h" | sed -n 's/^#define //p' | sort | join - "$work/names" >"$work/macros"
    # A declaration that takes the rest of the file up to its ";" is a function if the bracket closes before it.
    python3 - "$work/all.i" >"$work/interface.c" <<'PY'
import re, sys
text = open(sys.argv[1]).read()
print(text)
# Bodies of structs hold function pointers and semicolons that are none of ours.
flat, depth = "", 0
for char in text:
    depth -= char == "}"
    flat += char if depth == 0 else " "
    depth += char == "{"
for declaration in flat.split(";"):
    declaration = declaration.strip()
    # Those of the C library are declared extern, and types begin with their word.
    if declaration.startswith(("extern", "typedef", "struct", "union", "enum")) and not re.match(r"struct \w+ \*?\w+\(", declaration):
        continue
    if re.search(r"\w+\s*\(.*\)$", declaration, re.S):
        print(declaration + " { __builtin_trap(); }")
PY
    # From there, because the record has the name by which the compiler knows the file.
    (cd "$work" && cc -g -shared -fPIC -w -o interface.so interface.c)
}
exported() { nm -D --defined-only --format=posix "$1" | sed 's/ .*//' | sort; }
library=${2:-${TE_LIB:-target/release/libtransfer_engine.so}}

case ${1:-} in
record)
    version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
    interface include
    cmp <(exported "$work/interface.so") <(exported "$library") || fail "$library and the headers have different functions"
    mkdir -p release
    (cd "$work" && abidw --no-corpus-path --no-comp-dir-path --no-show-locs --out-file interface.abi interface.so)
    cp "$work/interface.abi" "release/abi-$version.abi"
    cp "$work/macros" "release/abi-$version.macros"
    exported "$library" >"release/abi-$version.symbols"
    ;;
check)
    last=$(printf '%s\n' release/abi-*.symbols | sort -V | tail -n 1)
    last=${last%.symbols}
    interface "${3:-include}"
    status=0
    [ -f "$library" ] || fail "$library is missing: run 'make build'"
    gone=$(comm -23 "$last.symbols" <(exported "$library"))
    [ -z "$gone" ] || { status=1 && echo "abi: since $last $library does not export:"$'\n'"$gone" >&2; }
    gone=$(comm -23 "$last.macros" "$work/macros")
    [ -z "$gone" ] || { status=1 && echo "abi: since $last these macros are gone or have another value:"$'\n'"$gone" >&2; }
    said=$(abidiff --no-added-syms --no-show-locs "$last.abi" "$work/interface.so") || { status=1 && echo "abi: since $last:"$'\n'"$said" >&2; }
    exit "$status"
    ;;
*) fail "say check or record" ;;
esac
