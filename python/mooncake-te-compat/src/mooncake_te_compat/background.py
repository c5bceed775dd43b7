"""TransferEngine, transfers in the background: batch ids, which are 0 on failure, and their status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mooncake_te._lib import READ, WRITE

from .base import Base
from .convert import integers, text, u64
from .transfers import Three, _arrays, _equal, _hints, _opcode, _standing, _submitter, _three
from .values import TransferOpcode


class Background(Base):
    __slots__ = ()

    def batch_transfer_async_write(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Begins many writes. The batch id, 0 on failure."""
        return self._async(WRITE, target_hostname, _three(buffers, peer_buffer_addresses, lengths), transport_hint, nic_hint)

    def batch_transfer_async_read(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Begins many reads. The batch id, 0 on failure."""
        return self._async(READ, target_hostname, _three(buffers, peer_buffer_addresses, lengths), transport_hint, nic_hint)

    def batch_transfer_async(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        opcode: TransferOpcode,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Begins many writes or reads. The batch id, 0 on failure."""
        three = _three(buffers, peer_buffer_addresses, lengths)
        return self._async(_opcode(opcode), target_hostname, three, transport_hint, nic_hint)

    def batch_transfer_async_write_arrays(
        self,
        target_hostname: str,
        buffers: Any,
        peer_buffer_addresses: Any,
        lengths: Any,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Begins many writes from arrays of 8-byte integers. The batch id, 0 on failure."""
        return self._async(WRITE, target_hostname, _arrays(buffers, peer_buffer_addresses, lengths), transport_hint, nic_hint)

    def batch_transfer_async_read_arrays(
        self,
        target_hostname: str,
        buffers: Any,
        peer_buffer_addresses: Any,
        lengths: Any,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> int:
        """Begins many reads from arrays of 8-byte integers. The batch id, 0 on failure."""
        return self._async(READ, target_hostname, _arrays(buffers, peer_buffer_addresses, lengths), transport_hint, nic_hint)

    def transfer_submit_write(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = "", nic_hint: str = ""
    ) -> int:
        """Begins a write. The batch id, 0 on failure."""
        return self._async(WRITE, target_hostname, _three([buffer], [peer_buffer_address], [length]), transport_hint, nic_hint)

    def _async(self, opcode: int, target: str, three: Three, transport_hint: str, nic_hint: str) -> int:
        name, nic = text(target, "target_hostname"), _hints(transport_hint, nic_hint)
        inner = self._ready("transfer in the background")
        if inner is None:
            return 0
        segment = inner._segment(name)
        if segment < 0:
            return inner._failed(f"opening {target!r}", 0)
        if not _equal(three):
            return 0
        batch = inner._submit(three[0].count, _submitter(inner, segment, opcode, three, nic, None), three[2])
        if batch == 0:
            inner._forget(name)
            return inner._failed(f"transfer with {target!r}", 0)
        return batch

    def get_batch_transfer_status(self, batch_ids: Sequence[int], /) -> int:
        """Waits for all. 0; -1 if one failed, is unknown, or ran out of time. All of them are freed then, and touch no local memory."""
        wanted = integers(batch_ids, "batch_ids")
        inner = self._ready("get_batch_transfer_status")
        if inner is None:
            return -1
        # Each id once, and those that are not ours fail without being touched.
        batches = list(dict.fromkeys(wanted.words()))
        known = [batch for batch in batches if batch in inner._batches]
        done = len(known) == len(batches)
        try:
            for batch in known if done else ():
                done = inner._wait(batch) and _standing(inner, batch) == 1
                if not done:
                    break
        finally:
            for batch in known:
                inner._give_up(batch)
        return 0 if done else -1

    def transfer_check_status(self, batch_id: int, /) -> int:
        """1 all completed, and freed; 0 some run; -1 failed, and freed, or unknown; -2 ran out of time (MC_REPORT_TIMEOUT)."""
        batch = u64(batch_id, "batch_id")
        inner = self._ready("transfer_check_status")
        if inner is None:
            return -1
        standing = _standing(inner, batch)
        if standing in (1, -1):
            inner._give_up(batch)
        return standing
