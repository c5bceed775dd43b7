"""One bench program against the other: write and read end with a report of more than nothing, and both exit with 0.

    bench_pair.py INITIATOR TARGET        each ours or upstream
"""

import signal
import sys

from peers import REPORT, bench, bench_target, expect

# Two threads, and blocks that do not fit into one socket buffer: what a single stream would hide.
SHAPE = {"buffer_size": 64 << 20, "threads": 2, "batch_size": 4, "block_size": 256 << 10}


def main(initiator_kind, target_kind):
    target, segment = bench_target(target_kind, SHAPE)
    initiator = None
    try:
        for operation in ("write", "read"):
            initiator = bench(initiator_kind, "initiator", {**SHAPE, "segment_id": segment, "duration": 1, "operation": operation})
            status, _ = initiator.finish(60)
            expect(status == 0, f"{operation}: the initiator's exit status is {status}", initiator, target)
            report = initiator.wait_for(REPORT, 0)
            expect(int(report.group(2)) > 0, f"{operation}: {report.group(0)}", initiator, target)
            print(f"{initiator_kind} -> {target_kind} {operation}: {report.group(0)}")
        target.signal(signal.SIGTERM)
        status, _ = target.finish(30)
        expect(status == 0, f"the target's exit status after SIGTERM is {status}", target)
    finally:
        for child in filter(None, (initiator, target)):
            child.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
