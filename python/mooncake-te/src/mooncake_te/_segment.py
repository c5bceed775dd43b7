"""A peer's memory: writing to it, reading from it, in lists, arrays, grids of pages, and in the background."""

from __future__ import annotations

import ctypes
import numbers
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from ._arrays import Exported, Integers, Integers64, borrow, integers, name, one, whole
from ._batch import Batch, in_main_thread
from ._errors import ArgumentError, DeadlineError, EngineClosedError, ErrorClass, from_info, raise_last
from ._lib import INVALID_BATCH, READ, WRITE, ErrorInfo, Notify, lib
from ._lib import RemoteBuffer as _RawBuffer
from ._time import milliseconds, seconds

if TYPE_CHECKING:
    from ._engine import Engine

_WORDS = {READ: "reading from", WRITE: "writing to"}


class RemoteBuffer(NamedTuple):
    """Registered memory of a peer."""

    address: int
    length: int
    location: str


class Notification(NamedTuple):
    """A short message between engines."""

    name: str
    message: str


# An address of registered memory, or an object whose memory is: a Region, bytearray, mmap, numpy array, torch CPU tensor.
Local = Union[int, Any]


class Segment:
    """The memory of one peer. From Engine.open; close it, or use it as a context manager."""

    def __init__(self, engine: Engine, segment_id: int, segment_name: str) -> None:
        self._engine, self.id, self.name, self._open = engine, segment_id, segment_name, True

    def _handle(self) -> int:
        if not self._open:
            raise EngineClosedError(f"segment {self.name} is closed")
        return self._engine._handle_or_raise()

    @property
    def buffers(self) -> list[RemoteBuffer]:
        """What the peer has registered, as of the last reading of its descriptor."""
        return [RemoteBuffer(*entry) for entry in segment_buffers(self._handle(), self.id, self.name)]

    def write(
        self, local: Local, remote: int | RemoteBuffer, length: int | None = None, *, nic: str = "", timeout: float | None = None
    ) -> None:
        """Moves bytes from here to the peer and waits until they are visible there.

        `length` defaults to that of `local`, unless that is an address. `nic`: the local NICs, separated by commas, that RDMA
        should use as long as one of them works. `timeout` in seconds: what runs then is given up; None or infinite: the task's own
        deadline, which grows with its bytes. Raises a TransferEngineError; afterwards local memory is not touched any more.
        """
        self._one(WRITE, local, remote, length, nic, timeout)

    def read(
        self, local: Local, remote: int | RemoteBuffer, length: int | None = None, *, nic: str = "", timeout: float | None = None
    ) -> None:
        """Moves bytes from the peer to here; otherwise as write."""
        self._one(READ, local, remote, length, nic, timeout)

    def write_batch(
        self, local: Integers, remote: Integers, lengths: Integers, *, nic: str = "", timeout: float | None = None
    ) -> None:
        """Many writes at once: three lists of ints of the same length, or arrays of 8-byte integers, which are not copied."""
        self._many(WRITE, local, remote, lengths, nic, timeout)

    def read_batch(
        self, local: Integers, remote: Integers, lengths: Integers, *, nic: str = "", timeout: float | None = None
    ) -> None:
        """Many reads at once, as write_batch."""
        self._many(READ, local, remote, lengths, nic, timeout)

    def submit_write(
        self, local: Integers, remote: Integers, lengths: Integers, *, nic: str = "", notify: Notification | None = None
    ) -> Batch:
        """As write_batch, without waiting. `notify` is sent to the peer by the wait that sees every task completed."""
        return self._submit(WRITE, local, remote, lengths, nic, notify)

    def submit_read(
        self, local: Integers, remote: Integers, lengths: Integers, *, nic: str = "", notify: Notification | None = None
    ) -> Batch:
        """As read_batch, without waiting; otherwise as submit_write."""
        return self._submit(READ, local, remote, lengths, nic, notify)

    def write_pages(
        self,
        local_pages: Any,
        remote_pages: Any,
        fields: Any,
        *,
        max_batch_size: int = 0,
        nic: str = "",
        timeout: float | None = None,
    ) -> None:
        """For each row of `fields` (local base, local stride, remote base, remote stride, length), and for each page i, one
        write between local base + local_pages[i] * local stride and its remote counterpart. Arrays of 8-byte integers; `fields`
        has two dimensions. `max_batch_size`: so many tasks at a time, 0: all. Signals wait until it is over."""
        self._pages(WRITE, local_pages, remote_pages, fields, max_batch_size, nic, timeout)

    def read_pages(
        self,
        local_pages: Any,
        remote_pages: Any,
        fields: Any,
        *,
        max_batch_size: int = 0,
        nic: str = "",
        timeout: float | None = None,
    ) -> None:
        """As write_pages, from the peer to here."""
        self._pages(READ, local_pages, remote_pages, fields, max_batch_size, nic, timeout)

    def notify(self, note_name: str, message: str) -> None:
        """Sends a message to the peer's engine and waits for the receipt."""
        note = Notify(name(note_name, "the name"), name(message, "the message"))
        if lib.genNotifyInEngine(self._handle(), self.id, note) != 0:
            self._engine._raise_last(f"notifying {self.name}", self.name)

    def close(self) -> None:
        """Undoes one Engine.open. Harmless the second time."""
        handle = self._engine._handle
        if self._open and handle is not None:
            lib.closeSegment(handle, self.id)
        self._open = False

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _one(self, opcode: int, local: Local, remote: int | RemoteBuffer, length: int | None, nic: str, timeout: float | None) -> None:
        target = remote.address if isinstance(remote, RemoteBuffer) else remote
        source, held = _address(local, length, opcode)
        if length is None:
            length = held.nbytes
        packed = one(source, "local"), one(target, "remote"), one(length, "length")
        self._wait_for(opcode, *packed, 1, nic, timeout)

    def _many(self, opcode: int, local: Integers, remote: Integers, lengths: Integers, nic: str, timeout: float | None) -> None:
        a, b, c = _three(local, remote, lengths)
        self._wait_for(opcode, a.pointer, b.pointer, c.pointer, a.count, nic, timeout)

    def _wait_for(self, opcode: int, a: Any, b: Any, c: Any, count: int, nic: str, timeout: float | None) -> None:
        limit, handle, what = seconds(timeout), self._handle(), f"{_WORDS[opcode]} {self.name}"
        chosen = name(nic, "nic") if nic else None
        if in_main_thread():  # C would keep signals waiting
            with self._batch(handle, opcode, a, b, c, count, chosen, None, what) as batch:
                batch.wait(limit)
            return
        info = ErrorInfo()
        start = time.monotonic()
        result = lib.mte_transfer_arrays(handle, self.id, opcode, a, b, c, count, chosen, milliseconds(limit), ctypes.addressof(info))
        if result != 0:
            self._raise(info, what, limit, start)

    def _raise(self, info: ErrorInfo, what: str, limit: float | None, start: float) -> None:
        self._engine._life.wait()
        if info.code == 0:  # the engine was closed meanwhile
            raise_last(what, self.name)
        error = from_info(info, what)
        if limit is not None and error.error_class is ErrorClass.CANCELED and time.monotonic() - start >= limit:
            raise DeadlineError(f"{what}: not done after {limit} s", error.code, ErrorClass.TIMEOUT, True, error.peer) from error
        raise error

    def _submit(self, opcode: int, local: Integers, remote: Integers, lengths: Integers, nic: str, notify: Notification | None) -> Batch:
        a, b, c = _three(local, remote, lengths)
        chosen = name(nic, "nic") if nic else None
        what = f"{_WORDS[opcode]} {self.name}"
        batch = self._batch(self._handle(), opcode, a.pointer, b.pointer, c.pointer, a.count, chosen, notify, what)
        batch._keep = local, remote, lengths, notify
        return batch

    def _batch(
        self, handle: int, opcode: int, a: Any, b: Any, c: Any, count: int, nic: bytes | None, notify: Notification | None, what: str
    ) -> Batch:
        note = notification(notify)
        self._engine._sweep()
        batch_id = lib.allocateBatchID(handle, max(count, 1))
        if batch_id == INVALID_BATCH:
            self._engine._raise_last(what, self.name)
        batch = Batch(self._engine, batch_id, count, None, what)
        if count == 0:
            return batch
        if lib.mte_submit_arrays(handle, batch_id, self.id, opcode, a, b, c, count, nic, note and ctypes.addressof(note)) != 0:
            self._engine._raise_last(what, self.name)
        return batch

    def _pages(self, opcode: int, a: Any, b: Any, rows: Any, at_once: int, nic: str, timeout: float | None) -> None:
        limit, most = seconds(timeout), whole(at_once, "max_batch_size")
        handle, what = self._handle(), f"{_WORDS[opcode]} {self.name}"
        local, remote = borrow(a, "local_pages"), borrow(b, "remote_pages")
        fields = borrow(rows, "fields", dimensions=2)
        if local.count != remote.count:
            raise ArgumentError(f"{local.count} local pages and {remote.count} remote pages")
        if not 0 <= most < 2**63:
            raise ArgumentError(f"max_batch_size is {most}")
        chosen = name(nic, "nic") if nic else None
        info = ErrorInfo()
        start = time.monotonic()
        result = lib.mte_transfer_pages(
            handle,
            self.id,
            opcode,
            local.pointer,
            remote.pointer,
            local.count,
            fields.pointer,
            fields.count,
            most,
            chosen,
            milliseconds(limit),
            ctypes.addressof(info),
        )
        if result != 0:
            self._raise(info, what, limit, start)


def segment_buffers(handle: int, segment_id: int, segment_name: str) -> list[tuple[int, int, str]]:
    """(address, length, location) of what a segment publishes."""
    room = 16
    while True:
        raw, count = (_RawBuffer * room)(), ctypes.c_size_t(room)
        if lib.mte_segment_buffers(handle, segment_id, ctypes.addressof(raw), count) != 0:
            raise_last(f"the buffers of {segment_name}", segment_name)
        if count.value <= room:
            return [(b.addr, b.length, b.location.decode(errors="replace")) for b in raw[: count.value]]
        room = count.value


def notification(notify: tuple[str, str] | None) -> Notify | None:
    """The C form of a notification, which lives as long as the object. TypeError for anything else."""
    if notify is None:
        return None
    if not isinstance(notify, tuple) or len(notify) != 2:
        raise TypeError(f"notify is {notify!r}; a Notification is needed")
    return Notify(name(notify[0], "the name"), name(notify[1], "the message"))


def _three(local: Integers, remote: Integers, lengths: Integers) -> tuple[Integers64, Integers64, Integers64]:
    found = integers(local, "local"), integers(remote, "remote"), integers(lengths, "lengths")
    if not found[0].count == found[1].count == found[2].count:
        counts = ", ".join(str(array64.count) for array64 in found)
        raise ArgumentError(f"local, remote and lengths differ in length: {counts}")
    return found


def _address(local: Local, length: int | None, opcode: int) -> tuple[int, Any]:
    if isinstance(local, numbers.Integral):  # not __index__, which arrays have too
        if length is None:
            raise ArgumentError("a length is needed with an address")
        return int(local), None
    held: Any = local if hasattr(local, "address") and hasattr(local, "nbytes") else Exported(local)
    if length is not None and not 0 <= length <= held.nbytes:
        raise ArgumentError(f"{length} bytes of {held.nbytes}")
    if opcode == READ and held.readonly:
        raise ArgumentError("reading into memory that is read-only")
    return held.address, held
