"""What the parts of TransferEngine share."""

from __future__ import annotations

from typing import NoReturn

from .inner import InnerTransferEngine, log


class Base:
    """Holds the inner engine; None before initialize."""

    __slots__ = ("__weakref__", "_inner")

    def __init__(self) -> None:
        self._inner: InnerTransferEngine | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied")

    def _ready(self, what: str) -> InnerTransferEngine | None:
        if self._inner is None:
            log.warning("%s: initialize was not called, or it failed", what)
        return self._inner
