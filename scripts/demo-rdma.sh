#!/usr/bin/env bash
# The demo over RDMA: the same two processes, in a guest with soft-RoCE devices, each with a NIC of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/rxe/out/demo
status=0
bash tests/rxe/guest.sh -n 2 -t 240 -o target/rxe/out/demo -- env LD_LIBRARY_PATH="$PWD/target/release" bash -o pipefail -c \
    'scripts/demo.sh --protocol=rdma --device_name=rxe0 -- --protocol=rdma --device_name=rxe1 2>&1 | tee /out/demo.log' >/dev/null || status=$?
cat target/rxe/out/demo/demo.log
exit "$status"
