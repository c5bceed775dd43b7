#!/usr/bin/env bash
# Runs engines and peers for TIME seconds (600) in all, over TCP, over the memory of one host and over simulated RDMA, with peers that are
# killed, stopped and restarted (tests/soak/soak.py), then the simulator (tests/sim) on seeds that `make test` does not run, and a million random lives
# of the state machines.
#
#   soak.sh FLAGS OF CARGO...
#
# SEED (1) decides what happens; SIM_SCHEDULES how many schedules the simulator runs.
set -euo pipefail
cd "$(dirname "$0")/.."
TIME=${TIME:-600} SEED=${SEED:-1}
each=$((TIME / 3))
export TE_LIB=$PWD/target/release/libtransfer_engine.so
make -s -C tests/simverbs
status=0

python3 tests/soak/soak.py "$each" "$SEED" tcp || status=1
python3 tests/soak/soak.py "$each" "$SEED" shm || status=1
LD_LIBRARY_PATH=$PWD/target/simverbs SIMVERBS_DEVICES=sim0 SIMVERBS_SHM=soak-$$ SIMVERBS_QUIET=1 \
    python3 tests/soak/soak.py "$each" "$SEED" rdma || status=1

# Seeds from a place of their own for each SEED.
SIM_SEED=$((SEED * 1000000000)) SIM_SCHEDULES=${SIM_SCHEDULES:-$((TIME * 5000))} \
    PROPTEST_CASES=${PROPTEST_CASES:-1000000} cargo test --quiet "$@" --lib -- sim::p0 machine::properties::p0 --nocapture || status=1
exit $status
