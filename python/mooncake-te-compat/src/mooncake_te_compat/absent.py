"""Names of upstream's module that stand for what this library does not do: they exist, and say so when they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

_RPC = (
    "upstream's RPC (coro_rpc) is no part of the transfer engine and is not provided by mooncake-te; "
    "use gRPC, ZeroMQ or upstream's own package for messages, and TransferEngine for memory"
)
_SHARED = (
    "shared segments are not provided by mooncake-te; map one file of /dev/shm in each process (mmap, or torch.UntypedStorage.from_file) "
    "and register it with TransferEngine.register_memory"
)


def absent(text: str) -> NoReturn:
    raise NotImplementedError(text)


class SharedSegment:
    """Memory shared by the processes of a host. `supported` is False and `create` raises NotImplementedError."""

    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> SharedSegment:
        raise TypeError("mooncake.engine.SharedSegment has no constructor")

    @staticmethod
    def create(
        name: str,
        size: int,
        world_size: int,
        rank_id: int,
        owner_rank: int = 0,
        device_id: int = 0,
        mmap: bool = True,
        host_register: bool = False,
    ) -> tuple[SharedSegment, bytes]:
        absent(_SHARED)

    @staticmethod
    def supported(mmap: bool = True, host_register: bool = False) -> bool:
        return False

    def complete(self, blobs: Sequence[bytes]) -> None:
        absent(_SHARED)

    def ready(self) -> bool:
        absent(_SHARED)

    def base_addr(self) -> int:
        absent(_SHARED)

    def device_addr(self) -> int:
        absent(_SHARED)

    def size(self) -> int:
        absent(_SHARED)


class _Received:
    __slots__ = ()

    def __new__(cls, *_: object, **__: object) -> Any:
        raise TypeError(f"mooncake.engine.{cls.__name__} has no constructor")

    @property
    def source_address(self) -> str:
        absent(_RPC)

    def get_memory_view(self) -> memoryview:
        absent(_RPC)


class ReceivedData(_Received):
    """Never made: upstream's RPC gives these to its callbacks."""

    __slots__ = ()

    @property
    def data_size(self) -> int:
        absent(_RPC)

    def get_bytes(self) -> bytes:
        absent(_RPC)


class ReceivedTensor(_Received):
    """Never made: upstream's RPC gives these to its callbacks."""

    __slots__ = ()

    @property
    def shape(self) -> list[int]:
        absent(_RPC)

    @property
    def dtype(self) -> str:
        absent(_RPC)

    @property
    def total_bytes(self) -> int:
        absent(_RPC)

    def get_data_size(self) -> int:
        absent(_RPC)

    def get_data_as_bytes(self) -> bytes:
        absent(_RPC)


class RpcInterface:
    """Upstream's messages between processes. Making one raises NotImplementedError."""

    __slots__ = ()

    def __init__(self) -> None:
        absent(_RPC)

    def initialize(self, listen_address: str = "", thread_count: int = 0, timeout_seconds: int = 30, pool_size: int = 100) -> bool:
        absent(_RPC)

    def initialize_client(self, pool_size: int = 100, timeout_seconds: int = 30) -> bool:
        absent(_RPC)

    def initialize_server(self, listen_address: str, thread_count: int = 8, timeout_seconds: int = 30) -> bool:
        absent(_RPC)

    def start_server(self) -> bool:
        absent(_RPC)

    def start_server_async(self) -> bool:
        absent(_RPC)

    def stop_server(self) -> None:
        absent(_RPC)

    def send_data(self, target_address: str, data: bytes) -> int:
        absent(_RPC)

    def send_data_async(self, target_address: str, data: bytes, loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
        absent(_RPC)

    def send_tensor(self, target_address: str, tensor: Any) -> int:
        absent(_RPC)

    def send_tensor_async(self, target_address: str, tensor: Any, loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
        absent(_RPC)

    def set_data_receive_callback(self, callback: Callable[[dict[str, Any]], object], /) -> None:
        absent(_RPC)

    def set_tensor_receive_callback(self, callback: Callable[[ReceivedTensor], object], /) -> None:
        absent(_RPC)


def create_rpc_client(local_rank: int = 0, world_size: int = 1) -> RpcInterface:
    """Raises NotImplementedError."""
    absent(_RPC)


def create_rpc_server(local_rank: int = 0, world_size: int = 1) -> RpcInterface:
    """Raises NotImplementedError."""
    absent(_RPC)
