"""What stands behind a TransferEngine: the C handle, segments by name, batches that run, buffers that were handed out."""

from __future__ import annotations

import logging
import mmap
import os
import time
import weakref
from collections.abc import Callable

from mooncake_te import last_error
from mooncake_te._lib import BATCH_BUSY, INVALID_BATCH, lib
from mooncake_te._life import Life
from mooncake_te._pool import Pool

from .convert import Integers64, signed

log = logging.getLogger("mooncake.engine")


class InnerTransferEngine:
    """The C handle (`get_engine_ptr`) and what belongs to it. Lives as long as somebody refers to it."""

    __slots__ = ("__weakref__", "_batches", "_dropped", "_finalizer", "_handle", "_life", "_pool", "_segments", "_timeout_ns")
    _handle: int
    _timeout_ns: int
    # Changed only by single operations on dicts and lists: no lock that a forked child could find held.
    _segments: dict[bytes, int]
    _batches: dict[int, tuple[int, Integers64 | None]]
    _dropped: list[int]
    _life: Life
    _pool: Pool
    _finalizer: weakref.finalize[..., InnerTransferEngine]

    def __new__(cls, *_: object, **__: object) -> InnerTransferEngine:
        raise TypeError("mooncake.engine.InnerTransferEngine has no constructor")

    @classmethod
    def _create(cls, handle: int) -> InnerTransferEngine:
        self = object.__new__(cls)
        self._handle = handle
        self._timeout_ns = _timeout_ns()
        self._segments, self._batches, self._dropped = {}, {}, []
        mappings: dict[int, mmap.mmap] = {}
        self._life = life = Life(handle, mappings.clear)
        # Not methods of this object, which would never be collected.
        self._pool = Pool(
            lambda address, length: lib.registerLocalMemory(handle, address, length, b"*", 1) == 0,
            lambda address: lib.unregisterLocalMemory(handle, address) == 0 or life.wait(),
            mappings,
        )
        self._finalizer = weakref.finalize(self, life.end)
        return self

    def _failed(self, what: str, result: int) -> int:
        """`result`, after its reason was logged: integers tell nobody why. Where that is the engine's end, once it is over."""
        self._life.wait()
        return failed(what, result)

    def _segment(self, target: bytes) -> int:
        """The id of a segment, opened at the first use; negative if that fails."""
        found = self._segments.get(target)
        if found is None:
            found = int(lib.openSegment(self._handle, target))
            if found >= 0:
                self._segments[target] = found
        return found

    def _forget(self, target: bytes) -> None:
        """After a failure: the next call opens the segment again, which reads its descriptor if the peer was started anew."""
        found = self._segments.pop(target, None)
        if found is not None:
            lib.closeSegment(self._handle, found)

    def _limit_ms(self, lengths: Integers64 | None, since_ns: int | None = None) -> int:
        """What is left of upstream's time-out, MC_TRANSFER_TIMEOUT and a nanosecond per byte."""
        extra = sum(signed(lengths.pointer, lengths.count)) if lengths is not None else 0
        used = 0 if since_ns is None else time.monotonic_ns() - since_ns
        return max(0, min((self._timeout_ns + max(extra, 0) - used) // 1_000_000, 1 << 60))

    def _submit(self, count: int, submit: Callable[[int], int], lengths: Integers64 | None) -> int:
        """A new batch with `count` tasks that `submit` gives it; 0 on failure."""
        self._sweep()
        batch = lib.allocateBatchID(self._handle, max(count, 1))
        if batch == INVALID_BATCH:
            return 0
        try:
            if count == 0 or submit(batch) == 0:
                self._batches[batch] = time.monotonic_ns(), lengths
                return int(batch)
        except BaseException:
            self._give_up(batch)
            raise
        lib.freeBatchID(self._handle, batch)
        return 0

    def _wait(self, batch: int) -> bool:
        """Waits for a batch of `_submit`, in slices so that signals are handled.

        False when upstream's time-out has passed, or another thread has taken the batch's end.
        """
        entry = self._batches.get(batch)
        if entry is None:
            return False
        since, lengths = entry
        base = True  # the lengths are added up only if the time without them is not enough
        while True:
            left = self._limit_ms(None if base else lengths, since)
            if lib.mte_wait_batch(self._handle, batch, min(left, 100)) != BATCH_BUSY:
                return True
            if left == 0:
                if not base:
                    return False
                base = False

    def _give_up(self, batch: int) -> None:
        """Frees a batch; what still runs is canceled, and has ended on return, or the engine has."""
        try:
            if lib.freeBatchID(self._handle, batch) == BATCH_BUSY:
                lib.mte_cancel_batch(self._handle, batch)
                lib.mte_wait_batch(self._handle, batch, -1)
                lib.freeBatchID(self._handle, batch)
            self._life.wait()
        finally:  # not before: who finds no entry may use the memory
            self._batches.pop(batch, None)

    def _sweep(self) -> None:
        """Frees batches whose tickets were dropped while they ran."""
        for _ in range(len(self._dropped)):
            try:
                batch = self._dropped.pop(0)
            except IndexError:  # another thread took it
                return
            if lib.freeBatchID(self._handle, batch) == BATCH_BUSY:
                self._dropped.append(batch)


def failed(what: str, result: int) -> int:
    """`result`, after its reason was logged."""
    log.warning("%s: %s", what, last_error()[1])
    return int(result)


def _timeout_ns() -> int:
    given = os.environ.get("MC_TRANSFER_TIMEOUT")
    try:
        seconds = 30 if given is None else max(5, min(int(given), 10**9))
    except ValueError:
        log.warning("MC_TRANSFER_TIMEOUT=%s is no number of seconds; 30 is used", given)
        seconds = 30
    return seconds * 1_000_000_000
