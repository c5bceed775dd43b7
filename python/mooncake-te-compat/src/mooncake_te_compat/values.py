"""The small types: enumerations as pybind makes them (a value outside is allowed, an int is never equal), a notification."""

from __future__ import annotations

from typing import Any, ClassVar

from .convert import text


class _Enumeration:
    __slots__ = ("_value",)
    __members__: ClassVar[dict[str, Any]]

    def __init__(self, value: int) -> None:
        if not hasattr(type(value), "__index__"):
            raise TypeError(f"{type(self).__name__}({value!r}): an int is needed")
        self._value = int(value)

    @property
    def value(self) -> int:
        return self._value

    @property
    def name(self) -> str:
        return next((name for name, member in self.__members__.items() if member._value == self._value), "???")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._value == self._value

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._value)

    def __index__(self) -> int:
        return self._value

    def __int__(self) -> int:
        return self._value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {self._value}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._value,)


class TransferOpcode(_Enumeration):
    """The direction of a transfer, seen from here."""

    __slots__ = ()
    Read: ClassVar[TransferOpcode]
    Write: ClassVar[TransferOpcode]

    def _other(self, other: object) -> int:
        if type(other) is not TransferOpcode:
            raise TypeError(f"a TransferOpcode cannot be compared with a {type(other).__name__}")
        return other._value

    def __lt__(self, other: object) -> bool:
        return self._value < self._other(other)

    def __le__(self, other: object) -> bool:
        return self._value <= self._other(other)

    def __gt__(self, other: object) -> bool:
        return self._value > self._other(other)

    def __ge__(self, other: object) -> bool:
        return self._value >= self._other(other)


class ScatterTransferCompletionStatus(_Enumeration):
    """How a scatter operation ended: COMPLETED; FAILED_DRAINED: failed, and its memory is quiet; COMPLETION_UNKNOWN: it runs, or it
    failed and bytes may still arrive at the peer."""

    __slots__ = ()
    COMPLETED: ClassVar[ScatterTransferCompletionStatus]
    FAILED_DRAINED: ClassVar[ScatterTransferCompletionStatus]
    COMPLETION_UNKNOWN: ClassVar[ScatterTransferCompletionStatus]


def _members(kind: type[_Enumeration], **values: int) -> None:
    kind.__members__ = {name: kind(value) for name, value in values.items()}
    for name, member in kind.__members__.items():
        setattr(kind, name, member)


_members(TransferOpcode, Read=0, Write=1)
_members(ScatterTransferCompletionStatus, COMPLETED=0, FAILED_DRAINED=-1, COMPLETION_UNKNOWN=-2)


class TransferNotify:
    """A message that goes to the target with a transfer."""

    __slots__ = ("_msg", "_name")

    def __init__(self, name: str | None = None, msg: str | None = None) -> None:
        if (name is None) != (msg is None):
            raise TypeError("TransferNotify() or TransferNotify(name, msg)")
        self._name, self._msg = b"", b""
        if name is not None and msg is not None:
            self.name, self.msg = name, msg

    @property
    def name(self) -> str:
        return self._name.decode()

    @name.setter
    def name(self, value: str) -> None:
        self._name = text(value, "name")

    @property
    def msg(self) -> str:
        return self._msg.decode()

    @msg.setter
    def msg(self, value: str) -> None:
        self._msg = text(value, "msg")
