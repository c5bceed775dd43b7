"""We read and write a segment of upstream in POSIX shared memory (MC_FORCE_SHM=1), on the same host.

    shared_memory.py FOLDER        with the wheel's packages
"""

import os
import sys

from peers import Peer, expect
from transfer import GUARD, OFFSET, one, scattered

SIZES = [1, 4096, 300_000, (4 << 20) + 3]
LENGTH = OFFSET + max(SIZES) + GUARD


def rail(ours, upstream):
    """What is shown of the way to the peer."""
    rails = [rail for rail in ours.links().get("rails", []) if rail["peer"] == upstream.segment]
    expect(len(rails) == 1, f"rails: {rails}", ours)
    return rails[0]


def refused(done, word):
    """The reason of a call that was refused, or of tasks that failed."""
    expect(not done["ok"], f"a transfer that cannot be: {done}")
    text = done["text"] if "text" in done else done["errors"][0]["text"]
    expect(word in text, f"{word} is not said: {done}")


def cases(ours, upstream):
    """Both have `LENGTH` bytes."""
    for size in SIZES:
        one(ours, upstream, size, 0)
    scattered(ours, upstream, 0)
    shown = rail(ours, upstream)
    expect(shown["state"] == "up" and shown["completed"] > 100, f"shown: {shown}")

    end = upstream.base + LENGTH
    for op in ("write", "read"):
        refused(ours.transfer(op=op, segment=upstream.segment, items=[[0, end - 10, 11]]), "one buffer")
        refused(ours.transfer(op=op, segment=upstream.segment, items=[[0, 4096, 64]]), "one buffer")

    # The descriptor that we know is older than what is done now.
    upstream.free()
    refused(ours.transfer(op="write", segment=upstream.segment, items=[[0, upstream.base, 64]]), "")
    upstream.register(2 * LENGTH)
    one(ours, upstream, 4096, 0)
    upstream.unregister()
    upstream.register(LENGTH)
    one(ours, upstream, 4096, 0)


def killed(ours, upstream):
    """Its object stays, and what is written there is nowhere."""
    named = [name for name in os.listdir("/dev/shm") if name.startswith(f"mooncake_{upstream.process.pid}_")]
    expect(named, "the peer has no object", upstream)
    try:
        upstream.kill()
        for _ in range(2):
            refused(ours.transfer(op="write", segment=upstream.segment, items=[[0, upstream.base, 64]]), "")
        expect(rail(ours, upstream)["state"] != "up", f"shown: {ours.links()}")
    finally:
        for name in named:
            os.remove(os.path.join("/dev/shm", name))


def main(folder, both=None):
    """`both`: settings of all, such as the store."""
    both = both or {}
    theirs = {"PYTHONPATH": folder, "LD_LIBRARY_PATH": os.path.join(folder, "stub"), "MC_FORCE_SHM": "1"}
    upstream, ours = Peer("upstream", {**theirs, **both}), Peer("ours", both)
    without = Peer("ours", {"MC_POSIX_SHM": "0", **both})
    try:
        for started in (upstream, ours, without):
            started.register(LENGTH)
        cases(ours, upstream)
        refused(without.transfer(op="write", segment=upstream.segment, items=[[0, upstream.base, 64]]), "MC_POSIX_SHM")
        killed(ours, upstream)
        ours.close()
    except BaseException:
        for started in (ours, upstream, without):
            print(started.log(), file=sys.stderr)
        raise
    finally:
        for started in (ours, upstream, without):
            started.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
