"""TransferEngine, memory: registering, managed buffers, bytes in and out."""

from __future__ import annotations

import array
from collections.abc import Sequence

from mooncake_te import _memory
from mooncake_te._lib import lib

from .base import Base
from .convert import integers, text, text_or_none, u64
from .inner import log


class Memory(Base):
    __slots__ = ()

    def allocate_managed_buffer(self, length: int, /) -> int:
        """The address of registered memory; 0 if there is none."""
        size, inner = u64(length, "length"), self._ready("allocate_managed_buffer")
        if inner is None:
            return 0
        address = inner._pool.allocate(size)
        if not address:
            log.warning("allocate_managed_buffer: there is no memory for %d bytes, or it cannot be registered", size)
        return address

    def free_managed_buffer(self, user_tensor: int, length: int, /) -> int:
        """0; -1 if the address is not in use."""
        address, _ = u64(user_tensor, "address"), u64(length, "length")
        inner = self._ready("free_managed_buffer")
        if inner is None:
            return -1
        if not inner._pool.free(address):
            log.warning("free_managed_buffer: %#x was not allocated here, or is free already", address)
            return -1
        return 0

    def write_bytes_to_buffer(self, dest_address: int, src_ptr: bytes | str, length: int, /) -> int:
        """Copies to an address. 0; -1 if it is not mapped, or there are fewer bytes (a str ends with a NUL)."""
        address, size = u64(dest_address, "dest_address"), u64(length, "length")
        source = text_or_none(src_ptr, "src_ptr") + b"\0"
        if size > len(source):
            log.warning("write_bytes_to_buffer: %d bytes of %d", size, len(source) - 1)
            return -1
        try:
            _memory.write(address, source[:size])
        except OSError as error:
            log.warning("write_bytes_to_buffer: %s", error)
            return -1
        return 0

    def read_bytes_from_buffer(self, source_address: int, length: int, /) -> bytes:
        """Copies from an address. OSError if it is not mapped."""
        return _memory.read(u64(source_address, "source_address"), u64(length, "length"))

    def register_memory(self, buffer_addr: int, capacity: int, location: str = "*", remote_accessible: bool = True) -> int:
        """0, or a code of error.h."""
        address, size, where = u64(buffer_addr, "buffer_addr"), u64(capacity, "capacity"), text(location, "location")
        if not hasattr(type(remote_accessible), "__bool__"):
            raise TypeError(f"remote_accessible is a {type(remote_accessible).__name__}; a bool is needed")
        inner = self._ready("register_memory")
        if inner is None:
            return -1
        result = lib.registerLocalMemory(inner._handle, address, size, where, int(bool(remote_accessible)))
        return int(result) if result == 0 else inner._failed("register_memory", result)

    def unregister_memory(self, buffer_addr: int, /) -> int:
        """0, or a code of error.h."""
        address, inner = u64(buffer_addr, "buffer_addr"), self._ready("unregister_memory")
        if inner is None:
            return -1
        result = lib.unregisterLocalMemory(inner._handle, address)
        return int(result) if result == 0 else inner._failed("unregister_memory", result)

    def batch_register_memory(self, buffer_addresses: Sequence[int], capacities: Sequence[int], location: str = "*") -> int:
        """Registers all or none. 0, or a code of error.h; -1 for lists of different lengths."""
        addresses, sizes = integers(buffer_addresses, "buffer_addresses"), integers(capacities, "capacities")
        where, inner = text(location, "location"), self._ready("batch_register_memory")
        if inner is None:
            return -1
        if addresses.count != sizes.count:
            log.warning("batch_register_memory: %d addresses and %d capacities", addresses.count, sizes.count)
            return -1
        entries = array.array("Q", bytes(16 * addresses.count))  # buffer_entry: address, length
        entries[0::2], entries[1::2] = addresses.copy(), sizes.copy()
        result = lib.registerLocalMemoryBatch(inner._handle, entries.buffer_info()[0], addresses.count, where)
        return int(result) if result == 0 else inner._failed("batch_register_memory", result)

    def batch_unregister_memory(self, buffer_addresses: Sequence[int], /) -> int:
        """Unregisters all that it can. 0, or the first failure's code of error.h."""
        addresses, inner = integers(buffer_addresses, "buffer_addresses"), self._ready("batch_unregister_memory")
        if inner is None:
            return -1
        result = lib.unregisterLocalMemoryBatch(inner._handle, addresses.pointer, addresses.count)
        return int(result) if result == 0 else inner._failed("batch_unregister_memory", result)
