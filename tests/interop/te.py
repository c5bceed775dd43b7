"""ctypes binding of libtransfer_engine.so: the C API and the mte_* extension, one thin method per function.

Owns nothing but the engine handle. The library is the file named by TE_LIB, else target/release/libtransfer_engine.so.
"""

import ctypes
import json
import os
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p

READ, WRITE = 0, 1
COMPLETED, FAILED = 4, 6
TERMINAL = (COMPLETED, FAILED)
INVALID_BATCH = 2**64 - 1


class Request(Structure):
    _fields_ = [("opcode", c_int), ("source", c_void_p), ("target_id", c_int32), ("target_offset", c_uint64), ("length", c_uint64)]


class Status(Structure):
    _fields_ = [("status", c_int), ("transferred_bytes", c_uint64)]


class NotifyMsg(Structure):
    _fields_ = [("name", c_char_p), ("msg", c_char_p)]


class TaskErrorInfo(Structure):
    _fields_ = [
        ("code", c_int),
        ("error_class", c_int),
        ("retryable", c_int),
        ("os_errno", c_int),
        ("peer", c_char * 128),
        ("text", c_char * 512),
    ]


class Buffer(Structure):
    _fields_ = [("addr", c_uint64), ("length", c_uint64), ("location", c_char * 64)]


# Sizes of the C structs: a wrong field here would corrupt memory silently.
assert (ctypes.sizeof(Request), ctypes.sizeof(Status), ctypes.sizeof(NotifyMsg)) == (40, 16, 16)

PROTOTYPES = {
    "createTransferEngine": (c_void_p, [c_char_p, c_char_p, c_char_p, c_uint64, c_int]),
    "destroyTransferEngine": (None, [c_void_p]),
    "getLocalIpAndPort": (c_int, [c_void_p, c_char_p, c_size_t]),
    "installTransport": (c_void_p, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "openSegment": (c_int32, [c_void_p, c_char_p]),
    "closeSegment": (c_int, [c_void_p, c_int32]),
    "registerLocalMemory": (c_int, [c_void_p, c_void_p, c_size_t, c_char_p, c_int]),
    "unregisterLocalMemory": (c_int, [c_void_p, c_void_p]),
    "allocateBatchID": (c_uint64, [c_void_p, c_size_t]),
    "submitTransfer": (c_int, [c_void_p, c_uint64, POINTER(Request), c_size_t]),
    "submitTransferWithNotify": (c_int, [c_void_p, c_uint64, POINTER(Request), c_size_t, NotifyMsg]),
    "getTransferStatus": (c_int, [c_void_p, c_uint64, c_size_t, POINTER(Status)]),
    "freeBatchID": (c_int, [c_void_p, c_uint64]),
    "getNotifsFromEngine": (POINTER(NotifyMsg), [c_void_p, POINTER(c_int)]),
    "freeNotifsMsgBuf": (c_int, [POINTER(NotifyMsg), c_int]),
    "genNotifyInEngine": (c_int, [c_void_p, c_uint64, NotifyMsg]),
    "showLinks": (c_int, [c_void_p, c_char_p, c_size_t, c_int]),
    "mte_last_error": (c_int, [c_char_p, c_size_t]),
    "mte_task_error": (c_int, [c_void_p, c_uint64, c_size_t, POINTER(TaskErrorInfo)]),
    "mte_wait_batch": (c_int, [c_void_p, c_uint64, c_int64]),
    "mte_segment_buffers": (c_int, [c_void_p, c_int32, POINTER(Buffer), POINTER(c_size_t)]),
}


def library_path():
    here = os.path.dirname(os.path.abspath(__file__))
    return os.environ.get("TE_LIB") or os.path.join(here, "..", "..", "target", "release", "libtransfer_engine.so")


def load():
    """The library with every prototype set: without them ctypes would cut handles to 32 bits."""
    lib = ctypes.CDLL(library_path())
    for name, (result, arguments) in PROTOTYPES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class TeError(Exception):
    """A call that failed, with the text of mte_last_error."""


class Engine:
    """One engine on the TCP transport. `segment` is the name that peers open."""

    def __init__(self, protocol="tcp", devices="", name="127.0.0.1", store="P2PHANDSHAKE"):
        """`devices` are comma-separated NICs, all of them equal."""
        self.lib = load()
        self.handle = self.lib.createTransferEngine(store.encode(), name.encode(), b"", 0, 0)
        if not self.handle:
            raise self.error("createTransferEngine", None)
        matrix = json.dumps({"cpu:0": [devices.split(","), []]}).encode()
        arguments = (c_void_p * 2)(ctypes.cast(c_char_p(matrix), c_void_p), None) if devices else None
        if not self.lib.installTransport(self.handle, protocol.encode(), arguments):
            raise self.error("installTransport", None)
        address = ctypes.create_string_buffer(256)
        self.check("getLocalIpAndPort", self.lib.getLocalIpAndPort(self.handle, address, len(address)))
        self.segment = address.value.decode() if store == "P2PHANDSHAKE" else name

    def error(self, call, result):
        text = ctypes.create_string_buffer(1024)
        code = self.lib.mte_last_error(text, len(text))
        return TeError(f"{call} gave {result}: last error {code}: {text.value.decode(errors='replace')}")

    def check(self, call, result):
        """The result, or TeError when it is negative."""
        if result < 0:
            raise self.error(call, result)
        return result

    def register(self, addr, length):
        self.check("registerLocalMemory", self.lib.registerLocalMemory(self.handle, addr, length, b"*", 1))

    def unregister(self, addr):
        self.check("unregisterLocalMemory", self.lib.unregisterLocalMemory(self.handle, addr))

    def open(self, segment):
        return self.check("openSegment", self.lib.openSegment(self.handle, segment.encode()))

    def close(self, target_id):
        self.check("closeSegment", self.lib.closeSegment(self.handle, target_id))

    def allocate(self, batch_size):
        batch = self.lib.allocateBatchID(self.handle, batch_size)
        if batch == INVALID_BATCH:
            raise self.error("allocateBatchID", batch)
        return batch

    def submit(self, batch, opcode, target_id, items, notify=None):
        """The plain result of the submit; `items` are (local address, remote address, length)."""
        requests = (Request * len(items))(*[Request(opcode, local, target_id, remote, length) for local, remote, length in items])
        if notify is None:
            return self.lib.submitTransfer(self.handle, batch, requests, len(items))
        message = NotifyMsg(notify[0].encode(), notify[1].encode())
        return self.lib.submitTransferWithNotify(self.handle, batch, requests, len(items), message)

    def wait(self, batch, timeout_ms):
        """mte_wait_batch: 0, or -4 when the time has passed."""
        return self.lib.mte_wait_batch(self.handle, batch, timeout_ms)

    def status(self, batch, task):
        """(result, status, transferred bytes) of one task."""
        status = Status()
        result = self.lib.getTransferStatus(self.handle, batch, task, byref(status))
        return result, status.status, status.transferred_bytes

    def task_error(self, batch, task):
        info = TaskErrorInfo()
        self.check("mte_task_error", self.lib.mte_task_error(self.handle, batch, task, byref(info)))
        return {
            "code": info.code,
            "class": info.error_class,
            "retryable": info.retryable,
            "os_errno": info.os_errno,
            "peer": info.peer.decode(errors="replace"),
            "text": info.text.decode(errors="replace"),
        }

    def free(self, batch):
        return self.lib.freeBatchID(self.handle, batch)

    def notify(self, target_id, name, message):
        result = self.lib.genNotifyInEngine(self.handle, target_id, NotifyMsg(name.encode(), message.encode()))
        self.check("genNotifyInEngine", result)

    def notifications(self):
        size = c_int(-1)
        messages = self.lib.getNotifsFromEngine(self.handle, byref(size))
        taken = [[messages[i].name.decode(), messages[i].msg.decode()] for i in range(size.value)]
        self.check("freeNotifsMsgBuf", self.lib.freeNotifsMsgBuf(messages, size.value))
        return taken

    def segment_buffers(self, target_id):
        """[(address, length)] that the segment publishes."""
        count = c_size_t(0)
        self.check("mte_segment_buffers", self.lib.mte_segment_buffers(self.handle, target_id, None, byref(count)))
        buffers = (Buffer * max(count.value, 1))()
        self.check("mte_segment_buffers", self.lib.mte_segment_buffers(self.handle, target_id, buffers, byref(count)))
        return [(buffers[i].addr, buffers[i].length) for i in range(min(count.value, len(buffers)))]

    def links(self):
        text = ctypes.create_string_buffer(1 << 16)
        self.check("showLinks", self.lib.showLinks(self.handle, text, len(text), 1))
        return json.loads(text.value)

    def destroy(self):
        if self.handle:
            self.lib.destroyTransferEngine(self.handle)
            self.handle = None
