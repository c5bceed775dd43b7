"""What callers pass for addresses, lengths and memory, as pointers for C. Nothing is copied that has a buffer of the right type."""

from __future__ import annotations

import array
import ctypes
import struct
from collections.abc import Sequence
from ctypes import c_char_p, c_int, c_ssize_t, c_void_p, py_object
from operator import index
from typing import Any, Union

Integers = Union[Sequence[int], Any]  # Any: whatever has a buffer of 8-byte integers, or a torch CPU tensor of them


class _PyBuffer(ctypes.Structure):
    """Py_buffer of CPython's C API: ctypes' own from_buffer refuses memory that is read-only."""

    _fields_ = [
        ("buf", c_void_p),
        ("obj", py_object),
        ("len", c_ssize_t),
        ("itemsize", c_ssize_t),
        ("readonly", c_int),
        ("ndim", c_int),
        ("format", c_char_p),
        ("shape", ctypes.POINTER(c_ssize_t)),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    ]


_get, _release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
_get.argtypes, _get.restype = [py_object, c_void_p, c_int], c_int
_release.argtypes, _release.restype = [c_void_p], None
_CONTIGUOUS = 0x8 | 0x4  # PyBUF_ND | PyBUF_FORMAT: C-contiguous, or BufferError

_INTEGER_FORMATS = frozenset(order + letter for order in ("", "@", "=", "<") for letter in "QqLlNn")

pack_u64 = struct.Struct("=Q").pack


class Exported:
    """Memory of an object that stays where it is until release(), or until the last reference is gone."""

    __slots__ = ("__weakref__", "_raw", "address", "nbytes", "owner", "readonly")

    def __init__(self, owner: Any) -> None:
        self._raw: _PyBuffer | None = None
        self.owner = owner
        tensor = _torch_range(owner)
        if tensor is not None:
            self.address, self.nbytes, self.readonly = tensor
            return
        raw = _PyBuffer()
        _get(owner, ctypes.addressof(raw), _CONTIGUOUS)
        self._raw = raw
        self.address, self.nbytes, self.readonly = raw.buf or 0, raw.len, bool(raw.readonly)

    def release(self) -> None:
        """Lets go of the memory. Harmless the second time."""
        raw, self._raw, self.owner = self._raw, None, None
        if raw is not None:
            _release(ctypes.addressof(raw))

    def __del__(self) -> None:
        self.release()


def _torch_range(thing: Any) -> tuple[int, int, bool] | None:
    """(address, bytes, read-only) of a torch tensor, which has no buffer. Torch is not imported for it."""
    if not hasattr(thing, "data_ptr") or not hasattr(thing, "is_contiguous"):
        return None
    if getattr(getattr(thing, "device", None), "type", "cpu") != "cpu":
        raise TypeError(f"a tensor on {thing.device}: only CPU tensors can be moved")
    if not thing.is_contiguous():
        raise BufferError("a tensor that is not contiguous")
    address, length = whole(thing.data_ptr(), "data_ptr()"), whole(thing.numel() * thing.element_size(), "the tensor's size")
    if not 0 <= address < 2**64 or not 0 <= length < 2**64:
        raise TypeError(f"a tensor of {length} bytes at {address}")
    return address, length, False


class Integers64:
    """A one-dimensional array of 8-byte integers for C: `pointer`, `count`. The memory lives as long as this object."""

    __slots__ = ("_keep", "count", "pointer")

    def __init__(self, pointer: int, count: int, keep: Any) -> None:
        self.pointer, self.count, self._keep = pointer, count, keep

    def words(self) -> list[int]:
        """The numbers, unsigned."""
        return list((ctypes.c_uint64 * self.count).from_address(self.pointer)) if self.count else []

    def copy(self) -> array.array[int]:
        """The numbers in memory of their own."""
        return array.array("Q", ctypes.string_at(self.pointer, 8 * self.count) if self.count else b"")


def borrow(values: Any, what: str, dimensions: int = 1) -> Integers64:
    """The memory of an array of 8-byte integers. TypeError if it is something else, or not contiguous."""
    if hasattr(values, "data_ptr") and hasattr(values, "numpy"):
        values = values.numpy()
    exported = Exported.__new__(Exported)
    exported.owner, exported._raw = values, None
    raw = _PyBuffer()
    try:
        _get(values, ctypes.addressof(raw), _CONTIGUOUS)
    except (BufferError, ValueError) as error:
        raise TypeError(f"{what} is not C-contiguous") from error
    exported._raw = raw
    if raw.itemsize != 8 or (raw.format or b"B").decode() not in _INTEGER_FORMATS:
        raise TypeError(f"{what} has items of type {(raw.format or b'B').decode()!r}; 8-byte integers are needed (int64, uint64)")
    if raw.ndim != dimensions:
        raise TypeError(f"{what} has {raw.ndim} dimensions, not {dimensions}")
    if dimensions == 2 and raw.shape[1] != 5:
        raise TypeError(f"{what} has rows of {raw.shape[1]}; 5 are needed: base, stride, base, stride, length")
    return Integers64(raw.buf or 0, raw.shape[0], exported)


def integers(values: Integers, what: str) -> Integers64:
    """A list or other sequence of ints (copied once), or an array of 8-byte integers (not copied).

    TypeError for what is no integer, negative or above 2**64 - 1.
    """
    kind = type(values)
    if kind is not list and kind is not tuple:
        if isinstance(values, (str, bytes, bytearray, dict)) or not hasattr(kind, "__getitem__") or not hasattr(kind, "__len__"):
            raise TypeError(f"{what} is a {kind.__name__}; a sequence of ints or an array of 8-byte integers is needed")
        if kind is not range:
            try:
                return borrow(values, what)
            except TypeError:
                values = list(values)
    try:
        copied = array.array("Q", values)
    except OverflowError as error:
        raise TypeError(f"{what}: {error}; 0 to 2**64 - 1 is the range") from None
    except TypeError as error:
        raise TypeError(f"{what}: {error}") from None
    return Integers64(copied.buffer_info()[0], len(copied), copied)


def whole(value: int, what: str) -> int:
    """An int, or what has __index__, as an int: ctypes takes no others. TypeError for anything else."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{what} is {value!r}; an int is needed") from None


def one(value: int, what: str) -> bytes:
    """One 8-byte integer for C. TypeError as for a list."""
    try:
        return pack_u64(value)
    except struct.error:
        raise TypeError(f"{what} is {value!r}; an int from 0 to 2**64 - 1 is needed") from None


def name(value: str, what: str) -> bytes:
    """A text for C. TypeError for anything else, ValueError for what C would cut off or could not read."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a {type(value).__name__}; a str is needed")
    encoded = value.encode()
    if b"\0" in encoded:
        raise ValueError(f"{what} has a NUL in it: {value!r}")
    return encoded
