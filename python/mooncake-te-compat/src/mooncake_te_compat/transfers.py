"""TransferEngine, transfers: single, in lists, in arrays, in pages; waiting, and in the background."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from mooncake_te._arrays import Integers64, pack_u64
from mooncake_te._lib import COMPLETED, READ, TIMEOUT, WRITE, BatchStatus, Notify, TaskStatus, lib

from .base import Base
from .convert import array64, grid, integers, no_negative, same_length, text, u64
from .inner import InnerTransferEngine, log
from .values import TransferNotify, TransferOpcode

# Up to so many requests, adding up their lengths for the time-out costs less than the three C calls that avoid it.
_FEW = 64
Three = tuple[Integers64, Integers64, Integers64]


class Transfers(Base):
    __slots__ = ()

    def transfer_sync_write(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = "", nic_hint: str = ""
    ) -> int:
        """Writes from here to the peer and waits. 0 or -1."""
        return self._single(WRITE, target_hostname, buffer, peer_buffer_address, length, transport_hint, nic_hint)

    def transfer_sync_read(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = "", nic_hint: str = ""
    ) -> int:
        """Reads from the peer to here and waits. 0 or -1."""
        return self._single(READ, target_hostname, buffer, peer_buffer_address, length, transport_hint, nic_hint)

    def transfer_sync(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        opcode: TransferOpcode,
        notify: TransferNotify | None = None,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Writes or reads, and waits; `notify` is sent to the peer when all is done. 0 or -1."""
        code, note = _opcode(opcode), _notify(notify)
        if note is None:
            return self._single(code, target_hostname, buffer, peer_buffer_address, length, transport_hint, nic_hint)
        three = _three([buffer], [peer_buffer_address], [length])
        return self._batch(code, target_hostname, three, transport_hint, nic_hint, note)

    def batch_transfer_sync_write(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Many writes; waits for all. 0 or -1."""
        return self._batch(WRITE, target_hostname, _three(buffers, peer_buffer_addresses, lengths), transport_hint, nic_hint)

    def batch_transfer_sync_read(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Many reads; waits for all. 0 or -1."""
        return self._batch(READ, target_hostname, _three(buffers, peer_buffer_addresses, lengths), transport_hint, nic_hint)

    def batch_transfer_sync(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        opcode: TransferOpcode,
        notify: TransferNotify | None = None,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Many writes or reads; waits for all; `notify` is sent to the peer then. 0 or -1."""
        three = _three(buffers, peer_buffer_addresses, lengths)
        return self._batch(_opcode(opcode), target_hostname, three, transport_hint, nic_hint, _notify(notify))

    def batch_transfer_sync_write_arrays(
        self,
        target_hostname: str,
        buffers: Any,
        peer_buffer_addresses: Any,
        lengths: Any,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Many writes from arrays of 8-byte integers, which are not copied. 0 or -1."""
        return self._batch(WRITE, target_hostname, _arrays(buffers, peer_buffer_addresses, lengths), transport_hint, nic_hint)

    def batch_transfer_sync_read_arrays(
        self,
        target_hostname: str,
        buffers: Any,
        peer_buffer_addresses: Any,
        lengths: Any,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Many reads from arrays of 8-byte integers, which are not copied. 0 or -1."""
        return self._batch(READ, target_hostname, _arrays(buffers, peer_buffer_addresses, lengths), transport_hint, nic_hint)

    def batch_transfer_sync_write_pages(
        self,
        target_hostname: str,
        src_pages: Any,
        dst_pages: Any,
        fields: Any,
        max_batch_size: int = 0,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Writes a grid: each page of each row of `fields` (local base, stride, remote base, stride, length). 0 or -1."""
        return self._pages(WRITE, target_hostname, src_pages, dst_pages, fields, max_batch_size, transport_hint, nic_hint)

    def batch_transfer_sync_read_pages(
        self,
        target_hostname: str,
        src_pages: Any,
        dst_pages: Any,
        fields: Any,
        max_batch_size: int = 0,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Reads a grid, as batch_transfer_sync_write_pages writes one. 0 or -1."""
        return self._pages(READ, target_hostname, src_pages, dst_pages, fields, max_batch_size, transport_hint, nic_hint)

    def _single(self, opcode: int, target: str, local: int, remote: int, length: int, transport_hint: str, nic_hint: str) -> int:
        name, nic = text(target, "target_hostname"), _hints(transport_hint, nic_hint)
        size = u64(length, "length")
        a, b, c = pack_u64(u64(local, "buffer")), pack_u64(u64(remote, "peer_buffer_address")), pack_u64(size)
        inner = self._ready("transfer")
        if inner is None:
            return -1
        segment = inner._segment(name)
        if segment < 0:
            return inner._failed(f"opening {target!r}", -1)
        limit = inner._limit_ms(None) + size // 1_000_000
        if lib.mte_transfer_arrays(inner._handle, segment, opcode, a, b, c, 1, nic, min(limit, 1 << 60), None) != 0:
            inner._forget(name)
            return inner._failed(f"transfer with {target!r}", -1)
        return 0

    def _batch(
        self, opcode: int, target: str, three: Three, transport_hint: str, nic_hint: str, note: Notify | None = None
    ) -> int:
        name, nic = text(target, "target_hostname"), _hints(transport_hint, nic_hint)
        inner = self._ready("batch transfer")
        if inner is None:
            return -1
        segment = inner._segment(name)
        if segment < 0:
            return inner._failed(f"opening {target!r}", -1)
        if not _equal(three):
            return -1
        a, b, c = three
        if note is None and a.count <= _FEW:
            limit = inner._limit_ms(c)
            done = lib.mte_transfer_arrays(inner._handle, segment, opcode, a.pointer, b.pointer, c.pointer, a.count, nic, limit, None) == 0
        else:
            batch = inner._submit(a.count, _submitter(inner, segment, opcode, three, nic, note), c)
            done = batch != 0 and self._outcome(inner, batch)
        if not done:
            inner._forget(name)
            return inner._failed(f"batch transfer with {target!r}", -1)
        return 0

    @staticmethod
    def _outcome(inner: InnerTransferEngine, batch: int) -> bool:
        """Waits for a batch and frees it, also if the wait is interrupted; whether all of it was completed."""
        try:
            return inner._wait(batch) and _standing(inner, batch) == 1
        finally:
            inner._give_up(batch)

    def _pages(
        self, opcode: int, target: str, src: Any, dst: Any, fields: Any, max_batch_size: int, transport_hint: str, nic_hint: str
    ) -> int:
        name, nic, at_once = text(target, "target_hostname"), _hints(transport_hint, nic_hint), u64(max_batch_size, "max_batch_size")
        sources, targets, rows = grid(src, dst, fields)
        inner = self._ready("pages transfer")
        if inner is None:
            return -1
        segment = inner._segment(name)
        if segment < 0:
            return inner._failed(f"opening {target!r}", -1)
        moved = sum(rows.words()[4::5]) * sources.count
        limit = min(inner._limit_ms(None) + moved // 1_000_000, 1 << 60)
        pointers = sources.pointer, targets.pointer, sources.count, rows.pointer, rows.count
        if lib.mte_transfer_pages(inner._handle, segment, opcode, *pointers, at_once, nic, limit, None) != 0:
            no_negative(sources, "src_pages")
            no_negative(targets, "dst_pages")
            inner._forget(name)
            return inner._failed(f"pages transfer with {target!r}", -1)
        return 0


def _opcode(opcode: TransferOpcode) -> int:
    if type(opcode) is not TransferOpcode:
        raise TypeError(f"opcode is a {type(opcode).__name__}; a TransferOpcode is needed")
    return WRITE if int(opcode) == WRITE else READ


def _notify(notify: TransferNotify | None) -> Notify | None:
    """The C form. ValueError for what C would cut off, or no peer could read."""
    if notify is None:
        return None
    if not isinstance(notify, TransferNotify):
        raise TypeError(f"notify is a {type(notify).__name__}; a TransferNotify or None is needed")
    for what, part in ("name", notify._name), ("msg", notify._msg):
        if b"\0" in part:
            raise ValueError(f"the {what} of notify has a NUL in it: {part!r}")
        part.decode()
    return Notify(notify._name, notify._msg)


def _hints(transport_hint: str, nic_hint: str) -> bytes | None:
    """The NICs for C. The other hint is for another engine of upstream's, and ignored there too without it."""
    if transport_hint != "":
        text(transport_hint, "transport_hint")
    return text(nic_hint, "nic_hint") if nic_hint != "" else None


def _three(buffers: Any, peer_buffer_addresses: Any, lengths: Any) -> Three:
    return (
        integers(buffers, "buffers"),
        integers(peer_buffer_addresses, "peer_buffer_addresses"),
        integers(lengths, "lengths"),
    )


def _arrays(buffers: Any, peer_buffer_addresses: Any, lengths: Any) -> Three:
    found = (
        array64(buffers, "buffers"),
        array64(peer_buffer_addresses, "peer_buffer_addresses"),
        array64(lengths, "lengths"),
    )
    same_length(*found)
    return found


def _equal(three: Three) -> bool:
    counts = [array.count for array in three]
    if len(set(counts)) > 1:
        log.warning("buffers, peer_buffer_addresses and lengths have %s entries", counts)
        return False
    return True


def _submitter(inner: InnerTransferEngine, segment: int, opcode: int, three: Three, nic: bytes | None, note: Notify | None) -> Any:
    a, b, c = three

    def submit(batch: int) -> int:
        pointers = a.pointer, b.pointer, c.pointer
        return int(lib.mte_submit_arrays(inner._handle, batch, segment, opcode, *pointers, a.count, nic, note and ctypes.addressof(note)))

    return submit


def _standing(inner: InnerTransferEngine, batch: int) -> int:
    """1: all tasks are completed; 0: some run; -1: one failed, or there is no such batch; -2: the first one's time ran out."""
    summary, first = BatchStatus(), TaskStatus()
    if lib.mte_batch_status(inner._handle, batch, ctypes.addressof(summary), ctypes.addressof(first), 1) != 0:
        return -1
    if summary.completed == summary.tasks:
        return 1
    if summary.completed + summary.failed < summary.tasks:
        return 0
    return -2 if first.status == TIMEOUT else -1
