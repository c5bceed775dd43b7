"""A side that has no cluster key, and one that has: nothing is moved either way, and nothing is written.

    strangers.py INITIATOR TARGET       one of them upstream, which knows no keys; MC_CLUSTER_KEY is in the environment
"""

import sys

from peers import expect, peer

LENGTH = 1 << 16


def attempt(initiator, op, target):
    try:
        return initiator.transfer(op=op, segment=target.segment, items=[[0, target.base, 4096]])
    except AssertionError as error:
        # Our side does not even open the segment.
        expect("hung up when asked for the cluster key" in str(error), f"{op}: {error}")
        return {"ok": False}


def main(initiator_kind, target_kind):
    with peer(target_kind, length=LENGTH) as target, peer(initiator_kind, length=LENGTH) as initiator:
        target.fill(seed=1, offset=0, length=LENGTH)
        initiator.fill(seed=2, offset=0, length=LENGTH)
        for op in ("write", "read"):
            answer = attempt(initiator, op, target)
            expect(not answer["ok"], f"{op} without a common key was accepted: {answer}", initiator, target)
        for side, seed in ((target, 1), (initiator, 2)):
            untouched = side.check(seed=seed, offset=0, length=LENGTH)
            expect(untouched["equal"], f"a refused call changed memory at {untouched['first_difference']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
