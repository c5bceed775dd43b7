"""libtransfer_engine.so through ctypes: where it is found, the prototypes, the C structs.

Functions of `blocking` release the GIL; those of `quick` keep it, because they take less than a microsecond and a busy
interpreter may need five milliseconds to give the GIL back (sys.getswitchinterval).
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

READ, WRITE = 0, 1
COMPLETED, TIMEOUT, FAILED = 4, 5, 6
INVALID_BATCH = 2**64 - 1
BATCH_BUSY = -4
SHARED_HUGE = 1
PEERS = {"read": 1, "write": 2}
NO_SUCH_FUNCTION = "this libtransfer_engine.so is older than the package"


class Notify(ctypes.Structure):
    """notify_msg."""

    _fields_ = [("name", c_char_p), ("msg", c_char_p)]


class ErrorInfo(ctypes.Structure):
    """mte_task_error_info."""

    _fields_ = [
        ("code", c_int),
        ("error_class", c_int),
        ("retryable", c_int),
        ("os_errno", c_int),
        ("peer", c_char * 128),
        ("text", c_char * 512),
    ]


class RemoteBuffer(ctypes.Structure):
    """mte_buffer."""

    _fields_ = [("addr", c_uint64), ("length", c_uint64), ("location", c_char * 64)]


class BatchStatus(ctypes.Structure):
    """mte_batch_status."""

    _fields_ = [("tasks", c_size_t), ("completed", c_size_t), ("failed", c_size_t), ("transferred_bytes", c_uint64)]


class TaskStatus(ctypes.Structure):
    """transfer_status."""

    _fields_ = [("status", c_int), ("transferred_bytes", c_uint64)]


class TaskReport(ctypes.Structure):
    """mte_task_report."""

    _fields_ = [
        ("status", c_int),
        ("code", c_int),
        ("error_class", c_int),
        ("retryable", c_int),
        ("os_errno", c_int),
        ("attempts", c_uint32),
        ("transferred_bytes", c_uint64),
        ("submitted_ns", c_uint64),
        ("connected_us", c_int64),
        ("posted_us", c_int64),
        ("completed_us", c_int64),
        ("peer", c_char * 128),
        ("nic", c_char * 64),
        ("rail", c_char * 256),
        ("text", c_char * 512),
    ]


class NicLoad(ctypes.Structure):
    """nic_load_stat."""

    _fields_ = [("device_name", c_char * 64), ("inflight_bytes", c_uint64), ("ewma_bandwidth_bps", c_double)]


# A wrong field would let C write past the end of a struct.
for _struct, _size in (Notify, 16), (ErrorInfo, 656), (RemoteBuffer, 80), (BatchStatus, 32), (TaskStatus, 16), (TaskReport, 1024), (NicLoad, 80):
    assert ctypes.sizeof(_struct) == _size, (_struct, ctypes.sizeof(_struct))

# Handles and addresses are passed as c_void_p: ints, or bytes objects, whose contents C only reads.
_H, _P, _S = c_void_p, c_void_p, c_char_p
_BLOCKING: dict[str, tuple[Any, list[Any]]] = {
    "mte_create_engine": (c_void_p, [_S, _S, _S, _S]),
    "destroyTransferEngine": (None, [_H]),
    "openSegment": (c_int32, [_H, _S]),
    "openSegmentNoCache": (c_int32, [_H, _S]),
    "closeSegment": (c_int, [_H, c_int32]),
    "syncSegmentCache": (c_int, [_H]),
    "mte_probe_peer": (c_int, [_H, _S]),
    "mte_segment_buffers": (c_int, [_H, c_int32, _P, POINTER(c_size_t)]),
    "mte_discover_topology": (c_int, [_S, _P, POINTER(c_size_t)]),
    "mte_local_topology": (c_int, [_H, _P, POINTER(c_size_t)]),
    "mte_segment_descriptor": (c_int, [_H, c_int32, _P, POINTER(c_size_t)]),
    "registerLocalMemory": (c_int, [_H, _P, c_size_t, _S, c_int]),
    "mte_register_memory": (c_int, [_H, _P, c_size_t, _S, c_int]),
    "unregisterLocalMemory": (c_int, [_H, _P]),
    "registerLocalMemoryBatch": (c_int, [_H, _P, c_size_t, _S]),
    "unregisterLocalMemoryBatch": (c_int, [_H, _P, c_size_t]),
    "mte_allocate_shared": (c_int, [_H, c_size_t, c_int, c_int, POINTER(c_void_p)]),
    "mte_free_shared": (c_int, [_H, _P]),
    "mte_transfer_arrays": (c_int, [_H, c_int32, c_int, _P, _P, _P, c_size_t, _S, c_int64, _P]),
    "mte_submit_arrays": (c_int, [_H, c_uint64, c_int32, c_int, _P, _P, _P, c_size_t, _S, _P]),
    "mte_transfer_pages": (c_int, [_H, c_int32, c_int, _P, _P, c_size_t, _P, c_size_t, c_size_t, _S, c_int64, _P]),
    "submitTransferWithNotify": (c_int, [_H, c_uint64, _P, c_size_t, Notify]),
    "mte_wait_batch": (c_int, [_H, c_uint64, c_int64]),
    "mte_batch_status": (c_int, [_H, c_uint64, _P, _P, c_size_t]),
    "genNotifyInEngine": (c_int, [_H, c_uint64, Notify]),
    "getNotifsFromEngine": (c_void_p, [_H, POINTER(c_int)]),
    "freeNotifsMsgBuf": (c_int, [_P, c_int]),
    "getNicLoadStats": (c_int, [_H, _P, POINTER(c_size_t)]),
    "showLinks": (c_int, [_H, _P, c_size_t, c_int]),
    "mte_metrics": (c_int, [c_int, _P, POINTER(c_size_t)]),
}
_QUICK: dict[str, tuple[Any, list[Any]]] = {
    "mte_last_error": (c_int, [_P, c_size_t]),
    "mte_last_error_info": (c_int, [_P]),
    "mte_strerror": (c_char_p, [c_int]),
    "mte_version": (c_char_p, []),
    "getRpcPort": (c_int, [_H]),
    "getLocalIpAndPort": (c_int, [_H, _P, c_size_t]),
    "allocateBatchID": (c_uint64, [_H, c_size_t]),
    "freeBatchID": (c_int, [_H, c_uint64]),
    "mte_cancel_batch": (c_int, [_H, c_uint64]),
    "mte_batch_fd": (c_int, [_H, c_uint64, POINTER(c_int)]),
    "mte_task_error": (c_int, [_H, c_uint64, c_size_t, _P]),
    "mte_task_report": (c_int, [_H, c_uint64, c_size_t, _P]),
    "mte_task_drained": (c_int, [_H, c_uint64, c_size_t, POINTER(c_int)]),
}


def library_path() -> str:
    """The file named by MOONCAKE_TE_LIBRARY, else the wheel's own, else whatever the loader finds under the library's name."""
    asked = os.environ.get("MOONCAKE_TE_LIBRARY")
    if asked:
        return asked
    own = Path(__file__).with_name("libtransfer_engine.so")
    return str(own) if own.exists() else "libtransfer_engine.so"


class Library:
    """The loaded library; its functions are attributes."""

    path: str

    def __init__(self) -> None:
        self.path = library_path()
        try:
            blocking, quick = ctypes.CDLL(self.path), ctypes.PyDLL(self.path)
        except OSError as error:
            raise ImportError(f"mooncake_te cannot load {self.path}: {error}") from error
        for library, table in (blocking, _BLOCKING), (quick, _QUICK):
            for name, (result, arguments) in table.items():
                try:
                    function = getattr(library, name)
                except AttributeError:
                    text = f"{self.path} has no {name}: {NO_SUCH_FUNCTION}, or not of this project (upstream's has the same name)"
                    raise ImportError(text) from None
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)

    # The functions are set above; this is for type checkers.
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


lib = Library()
