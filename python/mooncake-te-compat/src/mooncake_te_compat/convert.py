"""Arguments as pybind11 takes them: what it would refuse is a TypeError, and what it takes is taken."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from operator import index
from typing import Any

from mooncake_te._arrays import Integers64, borrow, integers

__all__ = ["Integers64", "array64", "grid", "integers", "no_negative", "rows", "same_length", "signed", "text", "text_or_none", "u64"]


def u64(value: int, what: str) -> int:
    """An int, or what has __index__, from 0 to 2**64 - 1."""
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{what} is a {type(value).__name__}; an int is needed") from None
    if not 0 <= number < 1 << 64:
        raise TypeError(f"{what} is {number}; 0 to 2**64 - 1 is the range")
    return number


def text(value: str | bytes | bytearray, what: str) -> bytes:
    """A str or bytes. C stops at a NUL in it, as with upstream."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise TypeError(f"{what} is not valid text: {error}") from None
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise TypeError(f"{what} is a {type(value).__name__}; a str is needed")


def text_or_none(value: str | bytes | None, what: str) -> bytes:
    """As text; None is "", as with upstream's `const char *`."""
    return b"" if value is None else text(value, what)


def array64(values: Any, what: str) -> Integers64:
    """The memory of a one-dimensional array of 8-byte integers; nothing is copied."""
    return borrow(values, what)


def same_length(*arrays: Integers64) -> None:
    """ValueError unless all have the same length."""
    if len({each.count for each in arrays}) > 1:
        raise ValueError(f"arrays of different lengths: {', '.join(str(each.count) for each in arrays)}")


def grid(src_pages: Any, dst_pages: Any, fields: Any) -> tuple[Integers64, Integers64, Integers64]:
    """The three arrays of the *_pages calls. ValueError for lengths and strides that make no sense; pages are checked by C."""
    sources, targets = borrow(src_pages, "src_pages"), borrow(dst_pages, "dst_pages")
    table = borrow(fields, "fields", dimensions=2)
    same_length(sources, targets)
    numbers = signed(table.pointer, table.count * 5)
    if any(length <= 0 for length in numbers[4::5]) or any(stride < 0 for stride in [*numbers[1::5], *numbers[3::5]]):
        raise ValueError("fields has a length that is not positive, or a negative stride")
    return sources, targets, table


def no_negative(pages: Integers64, what: str) -> None:
    """ValueError for a negative page."""
    if any(page < 0 for page in signed(pages.pointer, pages.count)):
        raise ValueError(f"{what} has a negative page")


def rows(values: Sequence[Sequence[int]], what: str) -> list[Integers64]:
    """A sequence of sequences of ints."""
    if isinstance(values, (str, bytes, bytearray, dict)) or not hasattr(type(values), "__getitem__"):
        raise TypeError(f"{what} is a {type(values).__name__}; a sequence of sequences of ints is needed")
    return [integers(row, f"{what}[{place}]") for place, row in enumerate(values)]


def signed(pointer: int, count: int) -> list[int]:
    """The numbers of an array that C also sees."""
    return list((ctypes.c_int64 * count).from_address(pointer)) if count else []
