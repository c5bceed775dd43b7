"""Exceptions: one base class with everything that is known of a failure, one subclass per class of failure."""

from __future__ import annotations

import ctypes
import enum
from typing import NoReturn

from ._lib import ErrorInfo, lib


class ErrorClass(enum.IntEnum):
    """MTE_CLASS_*: what kind of failure it was."""

    ARGUMENT = 1
    RESOURCE = 2
    NETWORK = 3
    TIMEOUT = 4
    REJECTED = 5
    PROTOCOL = 6
    METADATA = 7
    DEVICE = 8
    CANCELED = 9
    UNSUPPORTED = 10
    INTERNAL = 11


class TransferEngineError(Exception):
    """A call or a task that failed.

    `code` is of error.h; `retryable` says whether the same call may succeed later; `peer` is a name or address, or "";
    `text` says what happened where and what to do; `os_errno` is the operating system's, or 0; `task` is the index of the
    failed task, or None.
    """

    def __init__(
        self,
        text: str,
        code: int = -1,
        error_class: ErrorClass = ErrorClass.ARGUMENT,
        retryable: bool = False,
        peer: str = "",
        os_errno: int = 0,
        task: int | None = None,
    ) -> None:
        super().__init__(text)
        self.text, self.code, self.error_class = text, code, error_class
        self.retryable, self.peer, self.os_errno, self.task = retryable, peer, os_errno, task

    def __str__(self) -> str:
        where = f" [task {self.task}]" if self.task is not None else ""
        return f"{self.text}{where} (code {self.code}, {self.error_class.name}{', retryable' if self.retryable else ''})"

    # Exception's own would call __init__ with the text only.
    def __reduce__(self) -> tuple[object, ...]:
        rest = (self.text, self.code, self.error_class, self.retryable, self.peer, self.os_errno, self.task)
        return type(self), rest


class ArgumentError(TransferEngineError, ValueError):
    """The caller passed something wrong."""


class EngineClosedError(ArgumentError):
    """The engine, segment, batch or region was closed."""


class ResourceError(TransferEngineError):
    """A limit of this process or machine."""


class NetworkError(TransferEngineError, ConnectionError):
    """Connecting, sending or receiving failed."""

    # OSError, below ConnectionError, has a __str__ and a __reduce__ of its own.
    __str__ = TransferEngineError.__str__
    __reduce__ = TransferEngineError.__reduce__


class DeadlineError(TransferEngineError, TimeoutError):
    """A deadline passed."""

    __str__ = TransferEngineError.__str__
    __reduce__ = TransferEngineError.__reduce__


class RejectedError(TransferEngineError):
    """The peer understood and refused."""


class ProtocolError(TransferEngineError):
    """The peer sent something that is not the protocol."""


class MetadataError(TransferEngineError):
    """The metadata store or the exchange of descriptors failed."""


class DeviceError(TransferEngineError):
    """A NIC or its driver failed, or none is usable."""


class CanceledError(TransferEngineError):
    """The batch was canceled, the engine closed, or the region unregistered, meanwhile."""


class UnsupportedError(TransferEngineError, NotImplementedError):
    """This build does not have it."""


class InternalError(TransferEngineError):
    """A bug of the library."""


_TYPES: dict[ErrorClass, type[TransferEngineError]] = {
    ErrorClass.ARGUMENT: ArgumentError,
    ErrorClass.RESOURCE: ResourceError,
    ErrorClass.NETWORK: NetworkError,
    ErrorClass.TIMEOUT: DeadlineError,
    ErrorClass.REJECTED: RejectedError,
    ErrorClass.PROTOCOL: ProtocolError,
    ErrorClass.METADATA: MetadataError,
    ErrorClass.DEVICE: DeviceError,
    ErrorClass.CANCELED: CanceledError,
    ErrorClass.UNSUPPORTED: UnsupportedError,
    ErrorClass.INTERNAL: InternalError,
}

def last_error() -> tuple[int, str]:
    """Code and text of this thread's last failed call; (0, "") if none failed. Success does not clear it."""
    text = ctypes.create_string_buffer(4096)
    code = lib.mte_last_error(text, len(text))
    return code, text.value.decode(errors="replace")


def raise_last(what: str, peer: str = "") -> NoReturn:
    """Raises this thread's last error; `what` says which call failed."""
    info = ErrorInfo()
    lib.mte_last_error_info(ctypes.byref(info))
    error = from_info(info, what)
    # The text of a call may be longer than that of a task.
    text = f"{what}: {last_error()[1]}"
    raise type(error)(text, error.code, error.error_class, error.retryable, error.peer or peer, error.os_errno)


def from_info(info: ErrorInfo, what: str, task: int | None = None) -> TransferEngineError:
    """The exception for a failed task."""
    try:
        error_class = ErrorClass(info.error_class)
    except ValueError:  # a class that a newer library has
        error_class = ErrorClass.INTERNAL
    text = f"{what}: {info.text.decode(errors='replace')}"
    peer = info.peer.decode(errors="replace")
    return _TYPES[error_class](text, info.code, error_class, bool(info.retryable), peer, info.os_errno, task)
