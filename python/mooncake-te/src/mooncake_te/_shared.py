"""Memory of mte_allocate_shared as an object with a buffer, which is freed when nothing refers to it any more."""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

from ._lib import lib


def owner(address: int, length: int) -> Any:
    """An object whose buffer is the memory. Views and arrays made of it keep it, so none is ever left without memory."""
    try:
        # A class of its own, because arrays of ctypes' own classes cannot be referred to weakly.
        kind: Any = type("SharedMemory", (ctypes.c_ubyte * length,), {})
        memory = kind.from_address(address)
        # Not at the end of the interpreter, when other threads may still use it.
        weakref.finalize(memory, _free, address, os.getpid()).atexit = False
    except BaseException:
        _free(address, os.getpid())
        raise
    return memory


def _free(address: int, process: int) -> None:
    """Without an engine, because the one that allocated it may be gone. A forked child keeps what it shares with its parent."""
    if os.getpid() == process:
        lib.mte_free_shared(None, address)
