"""TransferEngine, scatter: pieces of several buffers in one operation, and a ticket that says when its memory is quiet."""

from __future__ import annotations

import array
import ctypes
import time
from collections.abc import Sequence
from typing import Any

from mooncake_te._arrays import Integers64
from mooncake_te._lib import BATCH_BUSY, READ, WRITE, lib

from .base import Base
from .convert import integers, rows, text, u64
from .inner import InnerTransferEngine, log
from .transfers import _standing, _submitter
from .values import ScatterTransferCompletionStatus as Status

_DRAINED_NO, _DRAINED_YES = 0, 1
# The pause between two questions whether the peer has confirmed that it takes no more bytes.
_PAUSES_S = (0.0005, 0.02)
Lists = Sequence[Sequence[int]]


class ScatterTransferTicket:
    """A scatter operation. Its batch is freed with the ticket, or once it has ended."""

    __slots__ = ("_batch", "_count", "_end", "_inner")
    _inner: InnerTransferEngine | None
    _batch: int
    _count: int
    _end: Status | None

    def __new__(cls, *_: object, **__: object) -> ScatterTransferTicket:
        raise TypeError("mooncake.engine.ScatterTransferTicket has no constructor")

    @classmethod
    def _create(cls, inner: InnerTransferEngine | None, batch: int, count: int, end: Status | None = None) -> ScatterTransferTicket:
        self = object.__new__(cls)
        self._inner, self._batch, self._count, self._end = inner, batch, count, end
        return self

    @property
    def status(self) -> Status:
        """COMPLETED; FAILED_DRAINED; COMPLETION_UNKNOWN while it runs, and while bytes of a failed one may still arrive at the peer."""
        if self._end is None and self._inner is not None:
            standing = _standing(self._inner, self._batch)
            if standing == 1:
                self._end = Status.COMPLETED
            elif standing != 0 and all(self._drained(task) for task in range(self._count)):
                self._end = Status.FAILED_DRAINED
        return self._end or Status.COMPLETION_UNKNOWN

    def _drained(self, task: int) -> bool:
        assert self._inner is not None
        answer = ctypes.c_int()
        asked = lib.mte_task_drained(self._inner._handle, self._batch, task, answer)
        return bool(asked == 0 and answer.value == _DRAINED_YES)

    @property
    def drained(self) -> bool:
        """Neither local nor remote memory is touched any more."""
        return self.status != Status.COMPLETION_UNKNOWN

    def drain(self, timeout_ms: int, /) -> Status:
        """Waits for an end, for `timeout_ms` at most. COMPLETION_UNKNOWN may be for good: the peer does not answer, or is upstream's."""
        until = time.monotonic() + min(u64(timeout_ms, "timeout_ms"), 1 << 40) / 1000
        pause, longest = _PAUSES_S
        while not self.drained and self._inner is not None:
            left = until - time.monotonic()
            if left <= 0 or self._hopeless():
                break
            if lib.mte_wait_batch(self._inner._handle, self._batch, min(int(left * 1000) + 1, 100)) != BATCH_BUSY:
                time.sleep(min(pause, left))
                pause = min(pause * 2, longest)
        return self.status

    def _hopeless(self) -> bool:
        """It has failed, every answer has come, and one is that nobody can know."""
        assert self._inner is not None
        if _standing(self._inner, self._batch) == 0:
            return False
        answer = ctypes.c_int()
        for task in range(self._count):
            if lib.mte_task_drained(self._inner._handle, self._batch, task, answer) != 0:
                return True
            if answer.value == _DRAINED_NO:
                return False
        return True

    def __del__(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None and self._batch:
            inner._batches.pop(self._batch, None)
            if lib.freeBatchID(inner._handle, self._batch) == BATCH_BUSY:
                inner._dropped.append(self._batch)


class Scatter(Base):
    __slots__ = ()

    def submit_scatter_write(
        self,
        endpoint: str,
        local_base_addresses: Sequence[int],
        local_capacities: Sequence[int],
        remote_base_addresses: Sequence[int],
        remote_capacities: Sequence[int],
        local_offsets: Lists,
        remote_offsets: Lists,
        lengths: Lists,
    ) -> ScatterTransferTicket:
        """Begins to write pieces of several buffers; each has to lie inside its buffers."""
        buffers = local_base_addresses, local_capacities, remote_base_addresses, remote_capacities
        return self._scatter(WRITE, endpoint, buffers, (local_offsets, remote_offsets, lengths))

    def submit_scatter_read(
        self,
        endpoint: str,
        local_base_addresses: Sequence[int],
        local_capacities: Sequence[int],
        remote_base_addresses: Sequence[int],
        remote_capacities: Sequence[int],
        local_offsets: Lists,
        remote_offsets: Lists,
        lengths: Lists,
    ) -> ScatterTransferTicket:
        """Begins to read pieces of several buffers."""
        buffers = local_base_addresses, local_capacities, remote_base_addresses, remote_capacities
        return self._scatter(READ, endpoint, buffers, (local_offsets, remote_offsets, lengths))

    def scatter_transfer_sync_write_with_ticket(
        self,
        endpoint: str,
        local_base_addresses: Sequence[int],
        local_capacities: Sequence[int],
        remote_base_addresses: Sequence[int],
        remote_capacities: Sequence[int],
        local_offsets: Lists,
        remote_offsets: Lists,
        lengths: Lists,
    ) -> ScatterTransferTicket:
        """As submit_scatter_write, and waits."""
        buffers = local_base_addresses, local_capacities, remote_base_addresses, remote_capacities
        return _ended(self._scatter(WRITE, endpoint, buffers, (local_offsets, remote_offsets, lengths)))

    def scatter_transfer_sync_read_with_ticket(
        self,
        endpoint: str,
        local_base_addresses: Sequence[int],
        local_capacities: Sequence[int],
        remote_base_addresses: Sequence[int],
        remote_capacities: Sequence[int],
        local_offsets: Lists,
        remote_offsets: Lists,
        lengths: Lists,
    ) -> ScatterTransferTicket:
        """As submit_scatter_read, and waits."""
        buffers = local_base_addresses, local_capacities, remote_base_addresses, remote_capacities
        return _ended(self._scatter(READ, endpoint, buffers, (local_offsets, remote_offsets, lengths)))

    def _scatter(
        self, opcode: int, endpoint: str, buffers: tuple[Any, Any, Any, Any], pieces: tuple[Lists, Lists, Lists]
    ) -> ScatterTransferTicket:
        name = text(endpoint, "endpoint")
        what = "local_base_addresses", "local_capacities", "remote_base_addresses", "remote_capacities"
        tables = [integers(values, which) for values, which in zip(buffers, what)]
        offsets, targets, sizes = (rows(pieces[i], which) for i, which in enumerate(("local_offsets", "remote_offsets", "lengths")))
        refused = ScatterTransferTicket._create(None, 0, 0, Status.FAILED_DRAINED)
        inner = self._ready("scatter transfer")
        if inner is None:
            return refused
        try:
            three = _flat([table.words() for table in tables], offsets, targets, sizes)
        except ValueError as error:
            log.warning("scatter transfer with %r: %s", endpoint, error)
            return refused
        if not three[0].count:
            return ScatterTransferTicket._create(None, 0, 0, Status.COMPLETED)
        segment = inner._segment(name)
        batch = inner._submit(three[0].count, _submitter(inner, segment, opcode, three, None, None), three[2]) if segment >= 0 else 0
        if not batch:
            inner._forget(name)
            inner._failed(f"scatter transfer with {endpoint!r}", 0)
            return refused
        return ScatterTransferTicket._create(inner, batch, three[0].count)


def _ended(ticket: ScatterTransferTicket) -> ScatterTransferTicket:
    """After upstream's time-out the rest is canceled: local memory is quiet on return, whatever the status."""
    inner = ticket._inner
    if inner is not None and not inner._wait(ticket._batch):
        lib.mte_cancel_batch(inner._handle, ticket._batch)
        lib.mte_wait_batch(inner._handle, ticket._batch, -1)
    if inner is not None:
        inner._life.wait()
    return ticket


def _flat(
    tables: list[list[int]], offsets: list[Integers64], targets: list[Integers64], sizes: list[Integers64]
) -> tuple[Integers64, Integers64, Integers64]:
    """The pieces as three arrays, without those of no bytes. ValueError unless each lies inside its buffers."""
    local_bases, local_rooms, remote_bases, remote_rooms = tables
    if len({*(len(table) for table in tables), len(offsets), len(targets), len(sizes)}) > 1:
        raise ValueError("lists of different lengths")
    columns: tuple[array.array[int], ...] = array.array("Q"), array.array("Q"), array.array("Q")
    for place, (starts, ends, lengths) in enumerate(zip(offsets, targets, sizes)):
        if not starts.count == ends.count == lengths.count:
            raise ValueError(f"lists of different lengths for buffer {place}")
        for start, end, length in zip(starts.words(), ends.words(), lengths.words()):
            if start + length > local_rooms[place] or end + length > remote_rooms[place]:
                raise ValueError(f"{length} bytes at {start} here and {end} there leave buffer {place}")
            if max(local_bases[place] + start, remote_bases[place] + end) + length >= 1 << 64:
                raise ValueError(f"{length} bytes of buffer {place} leave the address space")
            if length:
                for column, value in zip(columns, (local_bases[place] + start, remote_bases[place] + end, length)):
                    column.append(value)
    return tuple(Integers64(column.buffer_info()[0], len(column), column) for column in columns)  # type: ignore[return-value]
