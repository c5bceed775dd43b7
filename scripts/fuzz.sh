#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/, each for TIME seconds, or only TARGET, and says what each tried and found. New inputs that
# reach new code are kept in target/fuzz/corpus, where the next run goes on. Exit status 1: a target failed.
set -euo pipefail
cd "$(dirname "$0")/.."
# The compiler is the usual one; only the flags of the sanitizers are not stable.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=$PWD/target/fuzz
# Nothing of it is shipped: it is linked to this machine's libraries, as the sanitizer wants it.
unset TE_GLIBC RUSTFLAGS
# What engines say of inputs is of no interest.
export MC_LOG_LEVEL=ERROR
# A request for more memory than there is is refused, as the system does it. What the targets leave behind at the end is no leak.
export ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=0
status=0

run() { # TARGET
    local found=target/fuzz/corpus/$1 log=target/fuzz/$1.log failures=target/fuzz/failures/$1
    mkdir -p "$found" "$failures"
    # Inputs are short: each field of a peer that has a length is reached with few bytes. An input takes milliseconds, and no
    # more than a host has; leaks are looked for by the tests under valgrind.
    if ! nice cargo fuzz run --fuzz-dir fuzz "$1" "$found" "fuzz/corpus/$1" -- -max_total_time="${TIME:-60}" -max_len=4096 \
        -timeout=30 -rss_limit_mb=4096 -malloc_limit_mb=2000000000 -detect_leaks=0 -print_final_stats=1 -artifact_prefix="$failures/" >"$log" 2>&1; then
        status=1
        printf '%-16s FAILED, as %s says in full:\n' "$1" "$log"
        grep -aE -A 3 '^error|panicked|ERROR:|SUMMARY:' "$log" | head -n 40 || true
        echo "once the fault is found, keep the input (in $failures) in fuzz/corpus/$1, which make test runs"
        return
    fi
    sed -n 's/^Done \([0-9]*\) runs in \([0-9]*\) second.*/\1 \2/p' "$log" | while read -r runs seconds; do
        printf '%-16s %10s inputs in %5s s, %5s kept\n' "$1" "$runs" "$seconds" "$(find "$found" -type f | wc -l)"
    done
}

targets=$(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"/\1/p' fuzz/Cargo.toml)
cargo fuzz build --fuzz-dir fuzz ${TARGET:+"$TARGET"}
for target in ${TARGET:-$targets}; do run "$target"; done
exit $status
