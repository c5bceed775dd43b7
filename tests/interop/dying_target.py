"""A target that dies or stops: every task ends FAILED, in bounded time, with a text that says why.

    dying_target.py killed|stopped INITIATOR TARGET        each ours or upstream
"""

import signal
import sys
import time

from peers import expect, peer

LENGTH = 16 << 20
BATCH = 256  # 4 GiB: far more than sockets hold or than moves between two lines of this script
CLASS_TIMEOUT = 4
STATUS_TIMEOUT_S = 2


def failed_with_text(answer, initiator):
    expect(not answer["ok"], f"tasks did not fail: {answer}", initiator)
    if initiator.kind != "ours":
        return
    expect(answer["wait"] == 0, f"tasks are still not terminal: {answer}", initiator)
    expect(answer["failed"] > 0 and not answer["other"], f"a status other than COMPLETED and FAILED: {answer}", initiator)
    expect(answer["failed_without_text"] == 0, f"failed tasks whose error has no text: {answer}", initiator)
    expect(answer["free"] == 0, f"the batch cannot be freed: {answer}", initiator)


def killed(initiator_kind, target_kind, op):
    """SIGKILL in the middle of a batch: after one task is done, long before all are."""
    with peer(target_kind, length=LENGTH) as target, peer(initiator_kind, length=LENGTH) as initiator:
        warm = initiator.transfer(op=op, segment=target.segment, items=[[0, target.base, LENGTH]])
        expect(warm["ok"], f"{op} before the kill: {warm}", initiator, target)
        submitted = initiator.submit(op=op, segment=target.segment, items=[[0, target.base, LENGTH]] * BATCH)
        expect(submitted["submit"] == 0, f"submit: {submitted}", initiator)
        if initiator_kind == "ours":  # upstream's Python engine cannot tell that one task of a batch is done
            expect(initiator.first_done(seconds=30)["done"], "no task completed while the target was alive", initiator)
        target.kill()
        answer = initiator.wait(seconds=60)
        failed_with_text(answer, initiator)


def stopped(initiator_kind, target_kind, op):
    environment = {"MC_TCP_STATUS_TIMEOUT_SEC": str(STATUS_TIMEOUT_S)}
    with peer(target_kind, length=LENGTH) as target, peer(initiator_kind, environment, LENGTH) as initiator:
        warm = initiator.transfer(op=op, segment=target.segment, items=[[0, target.base, 4096]])
        expect(warm["ok"], f"{op} before the stop: {warm}", initiator, target)
        target.signal(signal.SIGSTOP)
        begin = time.monotonic()
        answer = initiator.transfer(op=op, segment=target.segment, items=[[0, target.base, 4096]])
        took = time.monotonic() - begin
        failed_with_text(answer, initiator)
        # The lower bound shows that it was the deadline and nothing else; the upper one leaves room for a busy machine.
        expect(STATUS_TIMEOUT_S * 0.9 <= took <= STATUS_TIMEOUT_S + 10, f"{op} failed after {took:.1f} s: {answer}", initiator)
        if initiator_kind == "ours":
            classes = [e["class"] for e in answer["errors"]]
            expect(classes == [CLASS_TIMEOUT], f"error classes {classes}: {answer}", initiator)
        target.kill()


if __name__ == "__main__":
    case = {"killed": killed, "stopped": stopped}[sys.argv[1]]
    for operation in ("write", "read"):
        case(*sys.argv[2:], operation)
