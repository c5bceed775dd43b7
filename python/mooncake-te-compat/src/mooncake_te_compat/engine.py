"""TransferEngine as upstream's module has it: the same names, arguments and integers.

Where upstream's crashes (a call before initialize, an unknown batch id, a bad address), this one returns the integer for
failure or raises. Each failure is logged with its reason by the logger "mooncake.engine".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mooncake_te import TransferEngineError
from mooncake_te._engine import take_notifications, whole_text
from mooncake_te._lib import lib
from mooncake_te._segment import segment_buffers

from .absent import absent
from .background import Background
from .convert import text, text_or_none
from .inner import InnerTransferEngine, failed, log
from .memory import Memory
from .scatter import Scatter
from .transfers import Transfers
from .values import TransferNotify, TransferOpcode

_P2P = b"P2PHANDSHAKE"
_NO_CUDA = "this build moves host memory only (SUPPORT_CUDA is False): copy to host memory and use {0}, or use upstream's CUDA package"


class TransferEngine(Transfers, Background, Scatter, Memory):
    """One end of transfers. Any thread may use it; calls that wait release the GIL."""

    __slots__ = ()
    TransferOpcode: ClassVar[type[TransferOpcode]] = TransferOpcode

    def initialize(self, local_hostname: str, metadata_server: str, protocol: str, device_name: str, /) -> int:
        """0 or -1. `metadata_server`: with a scheme, bare (etcd), or "P2PHANDSHAKE"."""
        server = text_or_none(metadata_server, "metadata_server")
        scheme, separator, rest = server.partition(b"://")
        if not separator:
            scheme, rest = b"etcd", server
        return self._start(local_hostname, rest, protocol, device_name, scheme)

    def initialize_ext(
        self, local_hostname: str, metadata_server: str, protocol: str, device_name: str, metadata_type: str, /
    ) -> int:
        """As initialize, the scheme apart."""
        server, scheme = text_or_none(metadata_server, "metadata_server"), text_or_none(metadata_type, "metadata_type")
        return self._start(local_hostname, server, protocol, device_name, scheme)

    def _start(self, local_hostname: str, server: bytes, protocol: str, device_name: str, scheme: bytes) -> int:
        host, wanted = text_or_none(local_hostname, "local_hostname"), text_or_none(protocol, "protocol")
        devices = text_or_none(device_name, "device_name")
        if wanted == b"xgmi":
            log.warning("initialize: the protocol 'xgmi' is not for Python")
            return -1
        connection = server if server == _P2P or b"://" in server else scheme + b"://" + server
        # As upstream, which finds a transport by itself: `protocol` chooses only its allocator, and both ends have to agree.
        handle = lib.mte_create_engine(connection, host, b"auto", devices)
        if not handle:
            return failed("initialize", -1)
        # The one before stays in place until it has ended: meanwhile calls fail by it, and wait for its end.
        before, new = self._inner, InnerTransferEngine._create(handle)
        if before is not None:
            before._life.end()
        self._inner = new
        return 0

    def get_rpc_port(self) -> int:
        """The port of the session id; -1 before initialize."""
        inner = self._ready("get_rpc_port")
        return -1 if inner is None else int(lib.getRpcPort(inner._handle))

    def get_local_topology(self, device_name: str | None = None) -> str:
        """The NIC matrix that discovery finds with these devices, as JSON text."""
        devices = text_or_none(device_name, "device_name")
        try:
            return whole_text(lib.mte_discover_topology, devices)
        except TransferEngineError as error:
            log.warning("get_local_topology: %s", error)
            return "{}"

    def get_first_buffer_address(self, segment_name: str, /) -> int:
        """The address of the first buffer that a segment publishes now; 0 if there is none."""
        name = text(segment_name, "segment_name")
        inner = self._ready("get_first_buffer_address")
        if inner is None:
            return 0
        segment = lib.openSegmentNoCache(inner._handle, name)
        if segment < 0:
            return inner._failed(f"get_first_buffer_address({segment_name!r})", 0)
        try:
            found = segment_buffers(inner._handle, segment, str(segment_name))
        except TransferEngineError as error:
            log.warning("get_first_buffer_address: %s", error)
            return 0
        finally:
            lib.closeSegment(inner._handle, segment)
        return found[0][0] if found else 0

    def warmup_efa_segment(self, segment_name: str) -> int:
        """0: there is nothing to warm up."""
        text(segment_name, "segment_name")
        return 0

    def get_notifies(self) -> list[TransferNotify]:
        """Takes all received notifications."""
        inner = self._ready("get_notifies")
        return [] if inner is None else [TransferNotify(*pair) for pair in take_notifications(inner._handle)]

    def send_probe(self, peer_server_name: str) -> int:
        """0 if the peer's engine answers, else a code of error.h."""
        name = text(peer_server_name, "peer_server_name")
        inner = self._ready("send_probe")
        if inner is None:
            return -1
        result = int(lib.mte_probe_peer(inner._handle, name))
        return result if result == 0 else inner._failed("send_probe", result)

    def get_engine(self) -> InnerTransferEngine:
        """What get_engine_ptr points to; None before initialize."""
        return self._inner  # type: ignore[return-value]

    def get_engine_ptr(self) -> int:
        """The engine's handle in libtransfer_engine.so's C API, where upstream gives the address of a C++ object. 0 before initialize."""
        return 0 if self._inner is None else self._inner._handle

    def transfer_write_on_cuda(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        stream_ptr: int = 0,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> None:
        """Raises NotImplementedError."""
        absent(_NO_CUDA.format("transfer_sync_write"))

    def transfer_read_on_cuda(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        stream_ptr: int = 0,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> None:
        """Raises NotImplementedError."""
        absent(_NO_CUDA.format("transfer_sync_read"))

    def batch_transfer_write_on_cuda(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        stream_ptr: int = 0,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> None:
        """Raises NotImplementedError."""
        absent(_NO_CUDA.format("batch_transfer_sync_write"))

    def batch_transfer_read_on_cuda(
        self,
        target_hostname: str,
        buffers: Sequence[int],
        peer_buffer_addresses: Sequence[int],
        lengths: Sequence[int],
        stream_ptr: int = 0,
        transport_hint: str = "",
        nic_hint: str = "",
    ) -> None:
        """Raises NotImplementedError."""
        absent(_NO_CUDA.format("batch_transfer_sync_read"))
