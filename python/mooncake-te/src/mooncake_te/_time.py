"""Time-outs: seconds as callers give them, milliseconds as C takes them."""

from __future__ import annotations

import math

from ._errors import ArgumentError

LONGEST_MS = 2**62  # C adds to it what it waits for besides, in 64 bits


def seconds(timeout: float | None) -> float | None:
    """None without a limit, which an infinite one is too. ArgumentError for NaN, TypeError for what is no number."""
    if timeout is None:
        return None
    if not hasattr(type(timeout), "__float__") and not hasattr(type(timeout), "__index__"):
        raise TypeError(f"timeout is a {type(timeout).__name__}; a number of seconds or None is needed")
    try:
        found = float(timeout)
    except OverflowError:  # an int beyond what a float holds
        found = math.inf if timeout > 0 else -math.inf
    if math.isnan(found):
        raise ArgumentError("timeout is not a number (NaN)")
    return None if found == math.inf else max(found, 0.0)


def milliseconds(limit: float | None) -> int:
    """Of what `seconds` returned: -1 without a limit, else at most LONGEST_MS."""
    return -1 if limit is None else int(min(limit * 1000, float(LONGEST_MS)))
