"""An engine: its memory, its peers, its notifications. Any thread may use it; calls that wait release the GIL."""

from __future__ import annotations

import ctypes
import json
import mmap
import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

from ._arrays import Exported, name, whole
from ._errors import ArgumentError, EngineClosedError, TransferEngineError, raise_last
from ._lib import BATCH_BUSY, PEERS, SHARED_HUGE, NicLoad, Notify, lib
from ._life import Life
from ._region import Region
from ._segment import Notification, Segment
from ._shared import owner


class NicLoadStat(NamedTuple):
    """Load of one NIC."""

    device: str
    inflight_bytes: int
    bytes_per_second: float


# MTE_METRICS_*.
_METRICS_TEXT, _METRICS_JSON = 0, 1


class Engine:
    """One end of transfers.

    `server_name`: host or host:port; without a store a free port is taken, and `name` tells what peers open. `metadata`:
    "P2PHANDSHAKE" (no store), "etcd://…", "http://…", "redis://…". `protocol`: "auto" (RDMA where a NIC works, else TCP), "tcp",
    "rdma" or "rdma,tcp". `devices`: the only NICs that RDMA uses. Close it, or use it as a context manager; an engine that
    nobody refers to any more, and every engine when the interpreter exits, is closed.
    """

    def __init__(
        self, server_name: str, *, metadata: str = "P2PHANDSHAKE", protocol: str = "auto", devices: str | Sequence[str] = ""
    ) -> None:
        nics = devices if isinstance(devices, str) else ",".join(devices)
        texts = [name(metadata, "metadata"), name(server_name, "server_name"), name(protocol, "protocol"), name(nics, "devices")]
        handle = lib.mte_create_engine(*texts)
        if not handle:
            raise_last(f"creating the engine {server_name}")
        self._server_name, self._metadata = server_name, metadata
        # What has to stay until the engine is destroyed, by its id(). Not the regions, which refer to the engine: the finalizer
        # keeps this dict, so the engine would never be collected.
        self._held: dict[int, Exported] = {}
        # Batches that were dropped while they ran, with what they refer to.
        self._dropped: list[tuple[int, Any]] = []
        self._life = Life(handle, partial(_release, self._held, self._dropped))
        # Also runs when the interpreter exits, before its threads are frozen in the middle of calls.
        self._finalizer = weakref.finalize(self, self._life.end)

    @property
    def _handle(self) -> int | None:
        return self._life.handle

    def _handle_or_raise(self) -> int:
        handle = self._life.handle
        if handle is None:
            self._life.wait()
            raise EngineClosedError("the engine is closed")
        return handle

    def _raise_last(self, what: str, peer: str = "") -> NoReturn:
        """As raise_last, but where the call failed because the engine is being closed, only after that is over."""
        self._life.wait()
        raise_last(what, peer)

    @property
    def closed(self) -> bool:
        """Whether close was called."""
        return self._life.handle is None

    @property
    def address(self) -> str:
        """host:port of the handshake port."""
        text = ctypes.create_string_buffer(512)
        if lib.getLocalIpAndPort(self._handle_or_raise(), text, len(text)) != 0:
            self._raise_last("the engine's address")
        return text.value.decode()

    @property
    def name(self) -> str:
        """What peers pass to open."""
        return self.address if self._metadata == "P2PHANDSHAKE" else self._server_name

    @property
    def port(self) -> int:
        """The handshake port."""
        return int(self.address.rpartition(":")[2])

    def register(self, memory: Any, *, location: str = "*", remote_accessible: bool | str = True) -> Region:
        """Registers the memory of a bytearray, mmap, numpy array, torch CPU tensor or anything with a contiguous buffer.

        It cannot move or go away until the region is closed. `remote_accessible`: whether peers read and write it, or "read" or
        "write" if they may do only that. Memory that is read-only needs False or "read".
        """
        held = Exported(memory)
        if held.readonly and remote_accessible and remote_accessible != "read":
            held.release()
            raise ArgumentError('this memory is read-only: peers could write to it; pass remote_accessible=False, or "read"')
        return self._register(held.address, held.nbytes, location, remote_accessible, held)

    def register_address(self, address: int, length: int, *, location: str = "*", remote_accessible: bool | str = True) -> Region:
        """Registers memory by address. The caller keeps it mapped until the region is closed."""
        start, nbytes = whole(address, "address"), whole(length, "length")
        if not 0 <= start < 2**64 or not 0 <= nbytes < 2**64:
            raise ArgumentError(f"{nbytes} bytes at {start}")
        return self._register(start, nbytes, location, remote_accessible, None)

    def allocate(self, length: int, *, location: str = "*", remote_accessible: bool | str = True) -> Region:
        """New registered memory of whole pages, all zero; `view` of the region is its bytes."""
        try:
            mapping = mmap.mmap(-1, whole(length, "length"))
        except (OSError, OverflowError, ValueError) as error:
            raise ArgumentError(f"{length} bytes cannot be allocated: {error}") from error
        return self._register(*_range(mapping), location, remote_accessible, Exported(mapping))

    def allocate_shared(
        self, length: int, *, huge: bool = False, numa_node: int | None = None, location: str = "*", remote_accessible: bool | str = True
    ) -> Region:
        """As allocate, but engines of other processes on this host can map it: between two such regions no system call is needed.

        `huge`: of huge pages, if the system has some. `numa_node`: where its pages are made. The memory is freed when the region,
        or the engine, is closed and no view or array of it is left.
        """
        nbytes, node = whole(length, "length"), -1 if numa_node is None else whole(numa_node, "numa_node")
        if not 0 <= nbytes < 2**64 or (numa_node is not None and not 0 <= node < 2**31):
            raise ArgumentError(f"{nbytes} bytes of shared memory on NUMA node {numa_node}")
        address = ctypes.c_void_p()
        if lib.mte_allocate_shared(self._handle_or_raise(), nbytes, SHARED_HUGE if huge else 0, node, address) != 0:
            self._raise_last(f"allocating {nbytes} bytes of shared memory")
        memory = Exported(owner(address.value or 0, nbytes))
        return self._register(memory.address, nbytes, location, remote_accessible, memory)

    def _register(self, address: int, length: int, location: str, remote_accessible: bool | str, held: Exported | None) -> Region:
        handle = self._handle_or_raise()
        where = name(location, "location")
        if isinstance(remote_accessible, str):
            if remote_accessible not in PEERS:
                if held is not None:
                    held.release()
                raise ArgumentError(f'remote_accessible={remote_accessible!r} is none of True, False, "read" and "write"')
            code = lib.mte_register_memory(handle, address, length, where, PEERS[remote_accessible])
        else:
            code = lib.registerLocalMemory(handle, address, length, where, int(bool(remote_accessible)))
        if code != 0:
            if held is not None:
                held.release()
            self._raise_last(f"registering {length} bytes at {address:#x}")
        region = Region(self, address, length, bool(held is not None and held.readonly), held)
        if held is not None:
            self._held[id(held)] = held
        if self._life.handle is None:  # the end may have let go of all memory before this was added
            region.close()
            raise EngineClosedError("the engine is closed")
        return region

    def open(self, segment_name: str, *, fresh: bool = False) -> Segment:
        """A peer's memory. `fresh`: its descriptor is read again even if it is known."""
        call = lib.openSegmentNoCache if fresh else lib.openSegment
        segment_id = call(self._handle_or_raise(), name(segment_name, "segment_name"))
        if segment_id < 0:
            self._raise_last(f"opening {segment_name}", segment_name)
        return Segment(self, segment_id, segment_name)

    def probe(self, segment_name: str) -> None:
        """Returns if the peer's engine answers; raises why it does not."""
        if lib.mte_probe_peer(self._handle_or_raise(), name(segment_name, "segment_name")) != 0:
            self._raise_last(f"probing {segment_name}", segment_name)

    def is_alive(self, segment_name: str) -> bool:
        """Whether the peer's engine answers."""
        try:
            self.probe(segment_name)
        except EngineClosedError:
            raise
        except TransferEngineError:
            return False
        return True

    def sync_segments(self) -> None:
        """Reads the descriptors of all open segments again."""
        if lib.syncSegmentCache(self._handle_or_raise()) != 0:
            self._raise_last("reading descriptors again")

    def notifications(self) -> list[Notification]:
        """Takes all received notifications."""
        return [Notification(*pair) for pair in take_notifications(self._handle_or_raise())]

    def topology(self) -> dict[str, Any]:
        """The NIC priority matrix in use."""
        found: dict[str, Any] | None = json.loads(whole_text(lib.mte_local_topology, self._handle_or_raise()))
        return found or {}

    def descriptor(self) -> Any:
        """The own descriptor as peers read it."""
        return json.loads(whole_text(lib.mte_segment_descriptor, self._handle_or_raise(), 0))

    def links(self) -> Any:
        """What connects this engine to others, for people who look for a fault."""
        handle, room = self._handle_or_raise(), 64 << 10
        while True:
            text = ctypes.create_string_buffer(room)
            if lib.showLinks(handle, text, room, 1) != 0:
                self._raise_last("the engine's links")
            if len(text.value) < room - 1:
                return json.loads(text.value)
            room *= 4

    def nic_loads(self) -> list[NicLoadStat]:
        """The load of each NIC."""
        stats, count = (NicLoad * 256)(), ctypes.c_size_t(256)
        if lib.getNicLoadStats(self._handle_or_raise(), ctypes.addressof(stats), count) != 0:
            self._raise_last("the load of the NICs")
        found: Iterable[Any] = stats[: min(count.value, 256)]
        return [NicLoadStat(s.device_name.decode(errors="replace"), s.inflight_bytes, s.ewma_bandwidth_bps) for s in found]

    def close(self) -> None:
        """Ends everything: what runs fails with CanceledError, memory is given up. Two seconds at most. Harmless twice.

        Each call returns when all of that is over, also where another thread does it.
        """
        self._life.end()
        self._finalizer.detach()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _sweep(self) -> None:
        """Frees the dropped batches that have ended."""
        for _ in range(len(self._dropped)):
            try:
                entry = self._dropped.pop(0)
            except IndexError:  # another thread took it
                return
            if lib.freeBatchID(self._handle_or_raise(), entry[0]) == BATCH_BUSY:
                self._dropped.append(entry)


def discover_topology(devices: str | Sequence[str] = "") -> dict[str, Any]:
    """The NIC priority matrix that an engine with these devices would find on this machine now."""
    nics = devices if isinstance(devices, str) else ",".join(devices)
    found: dict[str, Any] = json.loads(whole_text(lib.mte_discover_topology, name(nics, "devices")))
    return found


def metrics() -> dict[str, Any]:
    """What all engines of this process have done and have to do: a member for each series, as /metrics/json has it."""
    told: dict[str, Any] = json.loads(whole_text(lib.mte_metrics, _METRICS_JSON))
    return told


def metrics_text() -> str:
    """The same as Prometheus reads it, for a program that has a port for it already."""
    return whole_text(lib.mte_metrics, _METRICS_TEXT)


def whole_text(function: Any, *arguments: Any) -> str:
    """A text that C measures: asked again with more room until all of it fits."""
    room = 4096
    while True:
        text, length = ctypes.create_string_buffer(room), ctypes.c_size_t(room)
        if function(*arguments, text, length) != 0:
            raise_last(function.__name__)
        if length.value <= room:
            return text.value.decode()
        room = length.value


def take_notifications(handle: int) -> list[tuple[str, str]]:
    """(name, message) of all received notifications, which are removed."""
    size = ctypes.c_int()
    address = lib.getNotifsFromEngine(handle, size)
    if not address:
        return []
    try:
        notes = (Notify * size.value).from_address(address)
        return [(note.name.decode(errors="replace"), note.msg.decode(errors="replace")) for note in notes]
    finally:
        lib.freeNotifsMsgBuf(address, size.value)


def _range(mapping: mmap.mmap) -> tuple[int, int]:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping)), len(mapping)


def _release(held: dict[int, Exported], dropped: list[tuple[int, Any]]) -> None:
    """After the engine, which writes to memory, is destroyed. Other threads may still add and remove entries."""
    while True:
        try:
            _, memory = held.popitem()
        except KeyError:
            break
        memory.release()
    dropped.clear()
