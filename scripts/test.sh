#!/usr/bin/env bash
# Runs every test, with cargo-nextest if it is installed, else with cargo test, and prints the slowest ten.
#
#   test.sh FLAGS OF CARGO...     for example --locked --profile checked
set -euo pipefail
cd "$(dirname "$0")/.."
export TE_LIB=$PWD/target/release/libtransfer_engine.so
# Random lives of the state machines; each of those tests has a floor of its own for runs without this.
export PROPTEST_CASES=${PROPTEST_CASES:-250000}
# Schedules of the simulator (tests/sim), all simulations together.
export SIM_SCHEDULES=${SIM_SCHEDULES:-1000000}
status=0

cargo test "$@" --doc
cargo test "$@" -p transfer-engine-models
# The crate that makes mutants, built as `make mutants` does. It tries none: that takes hours.
env -u RUSTFLAGS -u TE_GLIBC CARGO_TARGET_DIR=target/mutants/tool \
    cargo test --quiet --locked --manifest-path tests/mutants/Cargo.toml
if cargo nextest --version >/dev/null 2>&1; then
    report=target/nextest/default/junit.xml
    rm -f "$report"
    # It calls a profile of cargo's --cargo-profile.
    cargo nextest run "${@/#--profile/--cargo-profile}" --no-fail-fast || status=$?
    [ ! -e "$report" ] || python3 scripts/slowest.py junit "$report" || true
else
    said=target/cargo-test.txt
    cargo test "$@" --no-fail-fast --lib --bins --tests 2>&1 | tee "$said" || status=$?
    python3 scripts/slowest.py cargo "$said" || true
fi
exit "$status"
