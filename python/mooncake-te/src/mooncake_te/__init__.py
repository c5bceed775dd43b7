"""Moves blocks of memory between hosts with libtransfer_engine.so: the C API of Mooncake's transfer engine, and its wire.

    with Engine("10.0.0.1") as engine, engine.open("10.0.0.2:15428") as peer:
        with engine.register(array):
            peer.write(array, peer.buffers[0])
"""

from ._batch import Batch, Drained, Report, Status
from ._engine import Engine, NicLoadStat, discover_topology, metrics, metrics_text
from ._errors import (
    ArgumentError,
    CanceledError,
    DeadlineError,
    DeviceError,
    EngineClosedError,
    ErrorClass,
    InternalError,
    MetadataError,
    NetworkError,
    ProtocolError,
    RejectedError,
    ResourceError,
    TransferEngineError,
    UnsupportedError,
    last_error,
)
from ._lib import lib as _lib
from ._region import Region
from ._segment import Notification, RemoteBuffer, Segment

__version__: str = _lib.mte_version().decode()
library_path: str = _lib.path

__all__ = [
    "ArgumentError",
    "Batch",
    "CanceledError",
    "DeadlineError",
    "DeviceError",
    "Drained",
    "Engine",
    "EngineClosedError",
    "ErrorClass",
    "InternalError",
    "MetadataError",
    "NetworkError",
    "NicLoadStat",
    "Notification",
    "ProtocolError",
    "Region",
    "RejectedError",
    "RemoteBuffer",
    "Report",
    "ResourceError",
    "Segment",
    "Status",
    "TransferEngineError",
    "UnsupportedError",
    "__version__",
    "discover_topology",
    "last_error",
    "library_path",
    "metrics",
    "metrics_text",
]
