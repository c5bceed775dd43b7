"""WRITE, then READ, of several sizes; the bytes are compared on both sides.

    transfer.py INITIATOR TARGET        each ours or upstream; MC_* variables of the environment reach both, and matter to the initiator

TE_PROTOCOL=rdma TE_INITIATOR_DEVICES=… TE_TARGET_DEVICES=… does it over NICs; TE_LARGEST: no transfer of more bytes.
"""

import os
import sys

from peers import expect, peer

LARGEST = int(os.environ.get("TE_LARGEST", 16 << 20))
SIZES = [size for size in (1, 4096, (1 << 20) + 3, 16 << 20) if size <= LARGEST]
GUARD = 4096  # bytes after each range that must stay as they were
OFFSET = 4096 + 7  # unaligned on purpose
LENGTH = OFFSET + max(SIZES) + GUARD
BATCH = 64


def one(initiator, target, size, applied_late):
    remote, seed = target.base + OFFSET, size

    initiator.fill(seed=seed, offset=OFFSET, length=size)
    target.fill(seed=seed + 1, offset=OFFSET + size, length=GUARD)
    written = initiator.transfer(op="write", segment=target.segment, items=[[OFFSET, remote, size]])
    expect(written["ok"], f"WRITE of {size} bytes: {written}", initiator, target)
    expect(written.get("bytes", size) == size, f"WRITE of {size} bytes counted {written}")
    seen = target.check(seed=seed, offset=OFFSET, length=size, within=applied_late)
    expect(seen["equal"], f"WRITE of {size} bytes: the target differs at {seen['first_difference']}", initiator, target)
    guard = target.check(seed=seed + 1, offset=OFFSET + size, length=GUARD)
    expect(guard["equal"], f"WRITE of {size} bytes went past its end at the target")

    target.fill(seed=seed + 2, offset=OFFSET, length=size)
    initiator.fill(seed=seed + 3, offset=OFFSET, length=size + GUARD)
    initiator.fill(seed=seed + 4, offset=OFFSET + size, length=GUARD)
    read = initiator.transfer(op="read", segment=target.segment, items=[[OFFSET, remote, size]])
    expect(read["ok"], f"READ of {size} bytes: {read}", initiator, target)
    seen = initiator.check(seed=seed + 2, offset=OFFSET, length=size, before=seed + 3)
    expect(seen["equal"], f"READ of {size} bytes: the initiator differs at {seen['first_difference']}", initiator, target)
    guard = initiator.check(seed=seed + 4, offset=OFFSET + size, length=GUARD)
    expect(guard["equal"], f"READ of {size} bytes went past its end at the initiator")


def scattered(initiator, target, applied_late):
    """One submit of many small blocks: to places in reverse order, then read back in order."""
    size = 4096
    for i in range(BATCH):
        initiator.fill(seed=100 + i, offset=i * size, length=size)
    reverse = [[i * size, target.base + (BATCH - 1 - i) * size, size] for i in range(BATCH)]
    written = initiator.transfer(op="write", segment=target.segment, items=reverse)
    expect(written["ok"], f"batch WRITE: {written}", initiator, target)
    for i in range(BATCH):
        seen = target.check(seed=100 + i, offset=(BATCH - 1 - i) * size, length=size, within=applied_late)
        expect(seen["equal"], f"batch WRITE: block {i} differs at {seen['first_difference']}", initiator, target)
    forward = [[i * size, target.base + i * size, size] for i in range(BATCH)]
    read = initiator.transfer(op="read", segment=target.segment, items=forward)
    expect(read["ok"], f"batch READ: {read}", initiator, target)
    for i in range(BATCH):
        seen = initiator.check(seed=100 + BATCH - 1 - i, offset=i * size, length=size)
        expect(seen["equal"], f"batch READ: block {i} differs at {seen['first_difference']}", initiator, target)


def main(initiator_kind, target_kind):
    # A v1 WRITE has no acknowledgement: it completes before the target has applied it.
    applied_late = 20 if os.environ.get("MC_TCP_PROTO") == "1" else 0
    devices = [{"TE_DEVICES": os.environ.get(f"TE_{role}_DEVICES", "")} for role in ("TARGET", "INITIATOR")]
    with peer(target_kind, devices[0], LENGTH) as target, peer(initiator_kind, devices[1], LENGTH) as initiator:
        if initiator_kind == "ours":
            listed = initiator.buffers(segment=target.segment)["buffers"]
            expect(listed == [[target.base, LENGTH]], f"the target's buffers: {listed}", initiator, target)
        for size in SIZES:
            one(initiator, target, size, applied_late)
        scattered(initiator, target, applied_late)


if __name__ == "__main__":
    main(*sys.argv[1:])
