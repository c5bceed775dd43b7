#!/usr/bin/env bash
# Tries for TIME seconds whether the tests notice small changes of the sources (tests/mutants), and prints what is known so far.
# ONLY=src/metadata: of these sources; AGAIN=survived: also mutants that were tried, with that verdict; SEED: another order; JOBS: how many
# at the same time. What was found is kept in tests/mutants/record.txt, where the next run goes on, and as a table in RATES.md beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
# Nothing of it is shipped: it is built for this machine, with the usual flags.
unset TE_GLIBC RUSTFLAGS
CARGO_TARGET_DIR=$PWD/target/mutants/tool cargo build --quiet --locked --manifest-path tests/mutants/Cargo.toml
tool="nice target/mutants/tool/debug/transfer-engine-mutants"
$tool instrument
$tool cover ${JOBS:+--jobs "$JOBS"}
$tool run --time "${TIME:-600}" --seed "${SEED:-1}" ${ONLY:+--only "$ONLY"} ${AGAIN:+--again "$AGAIN"} ${JOBS:+--jobs "$JOBS"}
$tool report
