"""Registered memory in pieces: slabs that are registered once, cut into halves until a piece fits.

Pieces are powers of two from 8 KiB on, upstream's smallest. A slab is 64 MiB where upstream's is 2 GiB: an RDMA NIC pins a
slab as a whole, and 64 MiB is what many machines let a process pin (RLIMIT_MEMLOCK); on TCP, only what is touched takes
memory. What is larger than a slab is registered by itself and unregistered when it is freed. Slabs stay until the engine ends.
No lock: each step is one operation on a list or dict, so a forked child never finds one held.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable

SMALLEST = 8 << 10
SLAB = 64 << 20
_CLASSES = (SLAB // SMALLEST).bit_length()  # of the sizes 8 KiB … 64 MiB


class Pool:
    """`register` and `unregister` are given (address, length) of mappings and say whether it worked. `mappings` holds them."""

    def __init__(
        self, register: Callable[[int, int], bool], unregister: Callable[[int], object], mappings: dict[int, mmap.mmap] | None = None
    ) -> None:
        self._register, self._unregister = register, unregister
        self._free: list[list[int]] = [[] for _ in range(_CLASSES)]
        self._used: dict[int, int] = {}  # address: class, or -1 for one by itself
        self.mappings: dict[int, mmap.mmap] = {} if mappings is None else mappings

    def allocate(self, length: int) -> int:
        """The address of at least `length` bytes; 0 if there is no memory or it cannot be registered."""
        if length > SLAB:
            address = self._map(length)
            if address:
                self._used[address] = -1
            return address
        wanted = max(0, (max(length, 1) - 1) // SMALLEST).bit_length()
        address = self._take(wanted)
        if address:
            self._used[address] = wanted
        return address

    def free(self, address: int) -> bool:
        """False if the address was not allocated here, or was freed already."""
        size_class = self._used.pop(address, None)
        if size_class is None:
            return False
        if size_class >= 0:
            self._free[size_class].append(address)
            return True
        self._unregister(address)
        self.mappings.pop(address, None)
        return True

    def _take(self, size_class: int) -> int:
        for larger in range(size_class, _CLASSES):
            try:
                address = self._free[larger].pop()
            except IndexError:
                continue
            break
        else:
            larger, address = _CLASSES - 1, self._map(SLAB)
        # The upper halves go to the classes below.
        for smaller in range(larger - 1, size_class - 1, -1) if address else ():
            self._free[smaller].append(address + (SMALLEST << smaller))
        return address

    def _map(self, length: int) -> int:
        try:
            mapping = mmap.mmap(-1, length)
        except (OSError, OverflowError, ValueError):
            return 0
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        if not self._register(address, length):
            return 0
        self.mappings[address] = mapping
        return address
