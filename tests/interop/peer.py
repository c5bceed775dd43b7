"""One engine in a process of its own, driven by JSON lines on stdin; every line gets one JSON line on stdout.

    peer.py ours|upstream

TE_STORE names the metadata store (default P2PHANDSHAKE); with one, the segment is called after the kind and the process, or as TE_NAME says.

Both kinds understand the same commands, so a case is written once and runs in any pairing; upstream against upstream
proves the case itself. A process per engine also lets each have its own MC_* variables, be stopped and be killed.
Ends when stdin closes.
"""

import ctypes
import json
import mmap
import os
import random
import sys
import time


# What the engine moves bytes with; DEVICES: comma-separated NICs.
PROTOCOL, DEVICES = os.environ.get("TE_PROTOCOL", "tcp"), os.environ.get("TE_DEVICES", "")
STORE = os.environ.get("TE_STORE", "P2PHANDSHAKE")
PIECE = 65536  # bytes of a slice, as both kinds cut requests


def own_name(kind):
    return "127.0.0.1" if STORE == "P2PHANDSHAKE" else os.environ.get("TE_NAME") or f"{kind}-{os.getpid()}"


def pattern(seed, length):
    return random.Random(seed).randbytes(length)


class Memory:
    """One anonymous mapping that the engine registers."""

    def __init__(self, length):
        self.map = mmap.mmap(-1, length)
        self.addr = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.length = length


class SharedMemory:
    """What upstream allocates in POSIX shared memory (0.3.14 with MC_FORCE_SHM=1); its Python engine has no function for it."""

    ALLOCATE = "_ZN8mooncake14TransferEngine20allocateSharedMemoryEm"

    @classmethod
    def is_in(cls, module):
        """Releases before 0.3.14 have none."""
        return hasattr(ctypes.CDLL(module.__file__), cls.ALLOCATE)

    def __init__(self, module, engine, length):
        allocate = getattr(ctypes.CDLL(module.__file__), self.ALLOCATE)
        allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
        self.addr, self.length = allocate(engine.get_engine_ptr(), length), length
        self.map = memoryview((ctypes.c_char * length).from_address(self.addr)).cast("B")
        self.free = ctypes.CDLL(module.__file__)._ZN8mooncake14TransferEngine16freeSharedMemoryEPv
        self.free.restype, self.free.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p]


class Ours:
    def __init__(self):
        import te

        self.te, self.engine = te, te.Engine(PROTOCOL, DEVICES, own_name("ours"), STORE)
        self.segment = self.engine.segment

    def memory(self, length):
        return Memory(length)

    def links(self):
        return self.engine.links()

    def register(self, memory):
        self.engine.register(memory.addr, memory.length)

    def unregister(self, memory):
        self.engine.unregister(memory.addr)

    def submit(self, op, segment, items, notify=None):
        """(submit's result, batch). The batch has room for one more task: `refused` proves that a refused submit leaves it usable."""
        target = self.engine.open(segment)
        batch = self.engine.allocate(len(items) + 1)
        opcode = self.te.WRITE if op == "write" else self.te.READ
        return self.engine.submit(batch, opcode, target, items, notify), (batch, len(items), target)

    def first_done(self, handle, seconds):
        """True once some task is COMPLETED and False when none is in time. Polling is how the C API tells."""
        batch, count, _ = handle
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(self.engine.status(batch, i)[1] == self.te.COMPLETED for i in range(count)):
                return True
        return False

    def wait(self, handle, seconds):
        batch, count, _ = handle
        waited = self.engine.wait(batch, int(seconds * 1000))
        states = [self.engine.status(batch, i) for i in range(count)]
        ends = [status if result == 0 else None for result, status, _ in states]
        errors = [self.engine.task_error(batch, i) for i in range(count)]
        return {
            "ok": waited == 0 and ends == [self.te.COMPLETED] * count,
            "wait": waited,
            "completed": ends.count(self.te.COMPLETED),
            "failed": ends.count(self.te.FAILED),
            "other": [e for e in ends if e not in self.te.TERMINAL],
            "bytes": sum(s[2] for s in states),
            "failed_without_text": sum(1 for end, e in zip(ends, errors) if end == self.te.FAILED and not (e["code"] and e["text"])),
            "errors": [e for i, e in enumerate(errors) if e["code"] and e not in errors[:i]],
            "free": self.engine.free(batch),
        }

    def refused(self, handle, op, good):
        """What a batch looks like after a refused submit: no task in it, still usable, and free afterwards."""
        batch, _, target = handle
        unknown = self.engine.status(batch, 0)[0]
        opcode = self.te.WRITE if op == "write" else self.te.READ
        again = self.engine.submit(batch, opcode, target, [good])
        after = self.wait((batch, 1, target), 20)
        return {"status_of_task_0": unknown, "submit_again": again, **after}

    def transfer(self, op, segment, items, notify, good):
        result, handle = self.submit(op, segment, items, notify)
        if result != 0:
            text = str(self.engine.error("submit", result))
            return {"ok": False, "submit": result, "text": text, "after": self.refused(handle, op, good) if good else None}
        return {"submit": 0, **self.wait(handle, 60)}

    def notify(self, segment, name, message):
        self.engine.notify(self.engine.open(segment), name, message)

    def notifications(self):
        return self.engine.notifications()

    def buffers(self, segment):
        return self.engine.segment_buffers(self.engine.open(segment))

    def close(self):
        self.engine.destroy()


class Upstream:
    """Upstream's Python engine: results are 0 or -1 for a whole call, notifications ride on a transfer."""

    def __init__(self):
        from mooncake import engine as module

        self.module, self.engine = module, module.TransferEngine()
        name = own_name("upstream")
        if self.engine.initialize(name, STORE, PROTOCOL, DEVICES) != 0:
            raise RuntimeError("upstream initialize failed")
        self.segment = f"{name}:{self.engine.get_rpc_port()}" if STORE == "P2PHANDSHAKE" else name
        self.shares = os.environ.get("MC_FORCE_SHM") == "1" and hasattr(self.engine, "get_engine_ptr") and SharedMemory.is_in(self.module)

    def memory(self, length):
        return SharedMemory(self.module, self.engine, length) if self.shares else Memory(length)

    def register(self, memory):
        if self.engine.register_memory(memory.addr, memory.length) != 0:
            raise RuntimeError("upstream register_memory failed")

    def unregister(self, memory):
        if self.engine.unregister_memory(memory.addr) != 0:
            raise RuntimeError("upstream unregister_memory failed")

    def free(self, memory):
        if memory.free(self.engine.get_engine_ptr(), memory.addr) != 0:
            raise RuntimeError("upstream freeSharedMemory failed")

    def submit(self, op, segment, items, notify=None):
        call = self.engine.batch_transfer_async_write if op == "write" else self.engine.batch_transfer_async_read
        batch = call(segment, *map(list, zip(*items)))
        return (0 if batch else -1), batch

    def wait(self, handle, seconds):
        result = self.engine.get_batch_transfer_status([handle])
        return {"ok": result == 0, "result": result}

    def transfer(self, op, segment, items, notify, good):
        opcode = self.module.TransferOpcode.Write if op == "write" else self.module.TransferOpcode.Read
        lists = map(list, zip(*items))
        message = self.module.TransferNotify(*notify) if notify else None
        result = self.engine.batch_transfer_sync(segment, *lists, opcode, message)
        return {"ok": result == 0, "submit": result}

    def notifications(self):
        return [[n.name, n.msg] for n in self.engine.get_notifies()]

    def probe(self, segment):
        """None: this release has no probe."""
        return self.engine.send_probe(segment) if hasattr(self.engine, "send_probe") else None

    def close(self):
        pass


class Commands:
    """One method per command; its keyword arguments are the members of the JSON object."""

    def __init__(self, engine):
        self.engine, self.memory, self.handle = engine, None, None

    def register(self, length):
        self.memory = self.engine.memory(length)
        self.engine.register(self.memory)
        return {"addr": self.memory.addr}

    def unregister(self):
        self.engine.unregister(self.memory)
        return {}

    def free(self):
        """Gives registered shared memory of upstream's back."""
        self.engine.free(self.memory)
        return {}

    def fill(self, seed, offset, length):
        self.memory.map[offset : offset + length] = pattern(seed, length)
        return {}

    def check(self, seed, offset, length, within=0, before=None):
        """Compares; `within` allows that many seconds for a v1 WRITE, which completes before the target has applied it.

        `before` is the seed of what the place held before: of a difference it is told whether nothing has come there."""
        expected, deadline = pattern(seed, length), time.monotonic() + within
        while True:
            found = self.memory.map[offset : offset + length]
            if found == expected or time.monotonic() >= deadline:
                break
        if found == expected:
            return {"equal": True, "first_difference": None}
        pieces = [i for i in range(0, length, PIECE) if found[i : i + PIECE] != expected[i : i + PIECE]]
        older = None if before is None else pattern(before, length)
        return {
            "equal": False,
            "first_difference": next(i for i in range(length) if found[i] != expected[i]),
            "pieces": [i // PIECE for i in pieces[:32]],
            "nothing_has_come": older is not None and all(found[i : i + PIECE] == older[i : i + PIECE] for i in pieces),
        }

    def local(self, items):
        return [(self.memory.addr + offset, remote, length) for offset, remote, length in items]

    def transfer(self, op, segment, items, notify=None, good=None):
        return self.engine.transfer(op, segment, self.local(items), notify, self.local([good])[0] if good else None)

    def submit(self, op, segment, items):
        result, self.handle = self.engine.submit(op, segment, self.local(items))
        return {"submit": result}

    def first_done(self, seconds):
        return {"done": self.engine.first_done(self.handle, seconds)}

    def wait(self, seconds):
        return self.engine.wait(self.handle, seconds)

    def notify(self, segment, name, message):
        self.engine.notify(segment, name, message)
        return {}

    def buffers(self, segment):
        return {"buffers": self.engine.buffers(segment)}

    def notifications(self):
        return {"messages": self.engine.notifications()}

    def probe(self, segment):
        return {"result": self.engine.probe(segment)}

    def links(self):
        return self.engine.links()


def main():
    # Replies go to the inherited stdout only; whatever a library prints goes to the log.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine = {"ours": Ours, "upstream": Upstream}[sys.argv[1]]()
    commands = Commands(engine)
    print(json.dumps({"segment": engine.segment}), file=replies)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            reply = getattr(commands, command.pop("do"))(**command)
        except Exception as error:  # the case decides whether it is a failure
            reply = {"exception": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies)
    engine.close()


if __name__ == "__main__":
    main()
