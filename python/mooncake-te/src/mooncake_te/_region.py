"""Memory that an engine has registered."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._errors import ArgumentError, EngineClosedError, raise_last
from ._lib import lib

if TYPE_CHECKING:
    from ._engine import Engine


class Region:
    """Registered memory: `address`, `nbytes`. The engine keeps it, and the object whose memory it is, until close."""

    def __init__(self, engine: Engine, address: int, nbytes: int, readonly: bool, held: Any) -> None:
        self._engine, self.address, self.nbytes, self.readonly, self._held = engine, address, nbytes, readonly, held
        self.closed = False

    def close(self) -> None:
        """Unregisters it. Running transfers get a second, then they are aborted; afterwards the memory may go. Harmless twice."""
        if self.closed:
            return
        engine = self._engine
        handle = engine._handle
        failed = handle is not None and lib.unregisterLocalMemory(handle, self.address) != 0
        if not engine._life.wait() and failed:
            raise_last(f"unregistering {self.nbytes} bytes at {self.address:#x}")
        self.closed = True
        if self._held is not None:
            engine._held.pop(id(self._held), None)
            self._held.release()

    @property
    def view(self) -> memoryview:
        """The memory as bytes. Only for regions of Engine.allocate, Engine.allocate_shared and of objects with a buffer, until close."""
        if self._held is None:
            raise ArgumentError("a region of register_address has no view: the memory is known by address only")
        owner = self._held.owner
        if owner is None:
            raise EngineClosedError("the region is closed")
        return memoryview(owner).cast("B")

    def __enter__(self) -> Region:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return self.nbytes
