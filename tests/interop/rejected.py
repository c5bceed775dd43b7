"""Addresses that the target has not registered: they fail, nothing is written, and both sides stay usable.

    rejected.py INITIATOR TARGET        each ours or upstream
"""

import sys

from peers import expect, peer

LENGTH = 1 << 20
ERR_INVALID_ARGUMENT, ERR_ADDRESS_NOT_REGISTERED = -1, -3


def main(initiator_kind, target_kind):
    with peer(target_kind, length=LENGTH) as target, peer(initiator_kind, length=LENGTH) as initiator:
        target.fill(seed=1, offset=0, length=LENGTH)
        initiator.fill(seed=2, offset=0, length=LENGTH)
        good = [0, target.base, 512]

        ranges = {"just past the end": target.base + LENGTH, "across the end": target.base + LENGTH - 2048, "low address": 4096}
        for op in ("write", "read"):
            for name, remote in ranges.items():
                items = [[0, target.base, 4096], [4096, remote, 4096]] if initiator_kind == "ours" else [[4096, remote, 4096]]
                # A READ as the task after the refusal: it changes nothing at the target.
                answer = initiator.transfer(op=op, segment=target.segment, items=items, good=good if op == "read" else None)
                expect(not answer["ok"], f"{op} {name} was accepted: {answer}", initiator, target)
                if initiator_kind == "ours":
                    refused_whole(op, name, answer)
        untouched = target.check(seed=1, offset=0, length=LENGTH)
        expect(untouched["equal"], f"a refused call changed the target at {untouched['first_difference']}")

        fine = initiator.transfer(op="write", segment=target.segment, items=[[0, target.base, 4096]])
        expect(fine["ok"], f"WRITE after the refusals: {fine}", initiator, target)

        # Known when submitted, gone at the peer: only the peer can tell.
        target.unregister()
        late = initiator.transfer(op="write", segment=target.segment, items=[[0, target.base, 4096]])
        expect(not late["ok"], f"WRITE to an unregistered buffer: {late}", initiator, target)
        if initiator_kind == "ours" and late["submit"] == 0:
            expect(late["failed"] == 1, f"WRITE to an unregistered buffer: {late}", initiator)
            expect(late["errors"][0]["code"] == ERR_ADDRESS_NOT_REGISTERED, f"its error: {late}", initiator)
            expect(late["failed_without_text"] == 0, f"its error has no text: {late}", initiator)


def refused_whole(op, name, answer):
    """One bad address of two refuses the call: -3, no task added, the batch usable afterwards."""
    expect(answer["submit"] == ERR_ADDRESS_NOT_REGISTERED, f"{op} {name}: submit gave {answer['submit']}, not -3")
    if after := answer["after"]:
        expect(after["status_of_task_0"] == ERR_INVALID_ARGUMENT, f"{op} {name} left a task in the batch: {after}")
        expect(after["submit_again"] == 0 and after["ok"], f"the batch is not usable after {op} {name}: {after}")
        expect(after["free"] == 0, f"the batch cannot be freed after {op} {name}: {after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
