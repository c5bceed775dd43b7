#!/usr/bin/env bash
# Builds the library with the address sanitizer in all of its own code and that of its crates, and runs the C tests over it, leaks
# included. (`make test` also runs them over the shipped library, where the sanitizer sees what goes through libc only.)
#
#   asan.sh [PROGRAM...]     of tests/c; all that can run so
#
# Left out: noclock, nothreads and starved come before the sanitizer's own functions with theirs; forks and forked run in children
# that have the memory of threads they do not have; stores needs a server; prototypes only compiles.
set -euo pipefail
cd "$(dirname "$0")/.."
ALL="codes consumers faults garbage layout lifetimes notified nulls own_segment paused posix_shm quiesce restarts results semantics settings shm shm_huge shutdown threads8 transfer unmapped visibility whole"
out=$PWD/target/asan/c
# The compiler is the usual one; only the sanitizer's flag is not stable.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$PWD/target/asan RUSTFLAGS="-Zsanitizer=address -Copt-level=1"
# Nothing of it is shipped: it is linked to this machine's libraries, as the sanitizer wants it.
unset TE_GLIBC

# For a target that is named, build scripts and macros are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --locked --quiet --target "$host" -p transfer-engine-capi
library=target/asan/$host/debug
nm -D "$library/libtransfer_engine.so" | grep __asan_report >/dev/null || { echo "asan.sh: the library is not instrumented" >&2; exit 1; }
programs=${*:-$ALL}
# shellcheck disable=SC2046
make -s -C tests/c SANITIZE=-fsanitize=address TE_LIB_DIR="$PWD/$library" OUT="$out" $(printf "$out/%s " $programs)

run() { # PROGRAM
    local options=detect_leaks=1
    case $1 in
    # Ask for more memory than there is.
    codes | whole) options+=:allocator_may_return_null=1 ;;
    # Measures its memory, of which freed blocks are a part until the sanitizer lets them go.
    lifetimes) options+=:quarantine_size_mb=1 ;;
    esac
    ASAN_OPTIONS=$options timeout 300 "$out/$1" >"$out/$1.said" 2>&1 || {
        echo "asan.sh: $1 failed:"
        grep -aE 'ERROR: |SUMMARY: |^FAIL|^not ok' "$out/$1.said" | head -n 20 || true
        tail -n 30 "$out/$1.said"
        return 1
    }
}

failed=
for program in $programs; do run "$program" || failed+=" $program"; done
[ -z "$failed" ] || { echo "asan.sh: failed under the address sanitizer:$failed" >&2; exit 1; }
echo "asan.sh: $(wc -w <<<"$programs") programs of tests/c under the address sanitizer: no misuse of memory, no leak"
