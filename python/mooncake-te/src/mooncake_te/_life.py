"""How long an engine lives: its C handle, the one thread that destroys it, and the others, which wait until that is over.

Until an engine is destroyed it may write to memory, so a call that finds it closed, or fails while it is being closed, returns
only after that. There is no lock that a forked child could find held, or a signal handler could find held by its own thread:
each step is one operation on a dict or list.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from ._lib import lib


class Life:
    """`handle` is None once the end has begun. `release` runs after the engine is destroyed; it must not refer to the engine."""

    __slots__ = ("_claim", "_gates", "_native", "_over", "_process", "_release", "handle")

    def __init__(self, handle: int, release: Callable[[], object]) -> None:
        self.handle: int | None = handle
        self._native = handle
        self._release, self._process = release, os.getpid()
        # The first one in destroys the engine: its thread, in a list of its own to tell it from a call inside that call.
        self._claim: dict[str, list[int]] = {}
        self._gates: list[threading.Lock] = []
        self._over = False

    def end(self) -> None:
        """Destroys the engine, or waits until another thread has. Any thread, also inside the collection of garbage."""
        own = [threading.get_ident()]
        try:
            if self._claim.setdefault("first", own) is own:
                self._destroy()
            else:
                self.wait()
        except BaseException:  # a signal handler raised, and nobody else would do what is left
            if self._claim.get("first") is own:
                self._destroy()
            raise

    def _destroy(self) -> None:
        """Harmless twice: C knows a handle that is gone."""
        self.handle = None
        lib.destroyTransferEngine(self._native)
        self._release()
        self._over = True
        while self._gates:
            self._gates.pop().release()

    def wait(self) -> bool:
        """Whether the end has begun, or the engine is the parent's of this process; if it has begun, waits until it is over.

        The thread that destroys the engine does not wait: a signal handler, or what garbage runs, would wait for itself.
        """
        if os.getpid() != self._process:
            return True
        first = self._claim.get("first")
        if first is None:
            return False
        if not self._over and first[0] != threading.get_ident():
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
            if not self._over:  # else nobody may be left who opens it
                gate.acquire()
        return True
