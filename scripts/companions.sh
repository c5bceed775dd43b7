#!/usr/bin/env bash
# Empty libraries under the names that build scripts for upstream's library give a linker beside it: what is in upstream's,
# libtransfer_engine brings by itself. Made only on request, because a machine may have the real ones.
#
#   companions.sh               makes them in target/companions
#   companions.sh list          prints their names
#   companions.sh is-ours FILE  whether a file is there and is such an empty library
set -euo pipefail
cd "$(dirname "$0")/.."
# Of mooncake_common both forms: scripts that find either ask for the static one.
shared=(asio mooncake_common)
static=(base mooncake_common)
out=target/companions

list() { printf 'lib%s.so\n' "${shared[@]}"; printf 'lib%s.a\n' "${static[@]}"; }

case ${1:-} in
list) list ;;
is-ours)
    [ -f "$2" ] || exit 1
    # A tool that is missing, or does not understand the file, has not said that it is empty.
    case $2 in
    *.a) said=$(ar t "$2" 2>/dev/null) && [ -z "$said" ] ;;
    *) said=$(nm -D --defined-only "$2" 2>/dev/null) && [ -z "$said" ] ;;
    esac
    ;;
*)
    mkdir -p "$out"
    for name in "${shared[@]}"; do cc -shared -nostdlib -x c /dev/null -o "$out/lib$name.so" -Wl,-soname,"lib$name.so"; done
    for name in "${static[@]}"; do rm -f "$out/lib$name.a" && ar rcsD "$out/lib$name.a"; done
    ;;
esac
