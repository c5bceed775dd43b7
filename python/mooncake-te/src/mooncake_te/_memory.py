"""Reading and writing this process's memory at addresses that may be wrong: the kernel copies, so a bad one is an OSError.

process_vm_readv and process_vm_writev on the own process do it in one call; where a sandbox refuses them, a pipe does.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_PIECE = 64 << 10  # what a pipe takes at once


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def _declare(name: str) -> Any:
    function = getattr(_libc, name)
    function.restype = ctypes.c_ssize_t
    function.argtypes = (
        [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        if name in ("read", "write")
        else [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    )
    return function


_readv, _writev, _read, _write = (_declare(name) for name in ("process_vm_readv", "process_vm_writev", "read", "write"))


def _bad(address: int, length: int, number: int) -> OSError:
    return OSError(number, f"{length} bytes at {address:#x}: {os.strerror(number)}")


def _checked(address: int, length: int) -> None:
    if address < 0 or length < 0 or address + length > 1 << 64:
        raise _bad(address, length, errno.EFAULT)


def _copy(call: Any, own: int, address: int, length: int) -> bool:
    """One direction of process_vm_*: False if the system refuses the call altogether."""
    done = 0
    while done < length:
        ours, theirs = _IoVec(own + done, length - done), _IoVec(address + done, length - done)
        moved = call(os.getpid(), ctypes.addressof(ours), 1, ctypes.addressof(theirs), 1, 0)
        if moved <= 0:
            number = ctypes.get_errno() if moved < 0 else errno.EFAULT
            if number in (errno.EPERM, errno.ENOSYS):
                return False
            raise _bad(address + done, length - done, number)
        done += moved
    return True


def read(address: int, length: int) -> bytes:
    """The bytes at an address. OSError (EFAULT) where nothing is mapped."""
    _checked(address, length)
    if length == 0:
        return b""
    if length > _PIECE:
        read(address + length - 1, 1)  # a length that is far too large must not allocate as much first
    found = bytearray(length)
    own = ctypes.c_char.from_buffer(found)
    if not _copy(_readv, ctypes.addressof(own), address, length):
        _through_pipe(address, memoryview(found), reading=True)
    del own
    return bytes(found)


def write(address: int, data: bytes | bytearray | memoryview) -> None:
    """Stores bytes at an address. OSError (EFAULT) where nothing writable is mapped; what lies before that is written."""
    _checked(address, len(data))
    held = ctypes.create_string_buffer(bytes(data), max(1, len(data)))
    if data and not _copy(_writev, ctypes.addressof(held), address, len(data)):
        _through_pipe(address, memoryview(data), reading=False)


def _through_pipe(address: int, data: memoryview, reading: bool) -> None:
    """The kernel checks the addresses of read(2) and write(2) too."""
    source, sink = os.pipe()
    try:
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            if not reading:
                os.write(sink, piece)
            moved = _write(sink, address + start, len(piece)) if reading else _read(source, address + start, len(piece))
            if moved != len(piece):
                raise _bad(address + start, len(piece), ctypes.get_errno() if moved < 0 else errno.EFAULT)
            if reading:
                piece[:] = os.read(source, len(piece))
    finally:
        os.close(source)
        os.close(sink)
