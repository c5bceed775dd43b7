"""One engine of mooncake.engine in a process of its own, driven by JSON lines on stdin; each line gets one JSON line on stdout.

Which module that is depends on the interpreter: upstream's in target/venv, ours in the tests' own. Uses nothing but that module
and the standard library. Ends when stdin closes.
"""

import ctypes
import json
import mmap
import os
import random
import sys

from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode


class Commands:
    """One method per command; its keyword arguments are the members of the JSON object."""

    def __init__(self):
        self.engine = TransferEngine()
        if self.engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
            raise RuntimeError("initialize failed")
        self.segment = f"127.0.0.1:{self.engine.get_rpc_port()}"

    def register(self, length):
        self.map = mmap.mmap(-1, length)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        return {"result": self.engine.register_memory(self.address, length), "address": self.address}

    def fill(self, seed, offset, length):
        self.map[offset : offset + length] = random.Random(seed).randbytes(length)
        return {}

    def equal(self, seed, offset, length):
        return {"equal": self.map[offset : offset + length] == random.Random(seed).randbytes(length)}

    def lists(self, items):
        return [list(column) for column in zip(*((self.address + here, there, length) for here, there, length in items))]

    def sync(self, op, segment, items, notify=None):
        opcode = TransferOpcode.Write if op == "write" else TransferOpcode.Read
        note = TransferNotify(*notify) if notify else None
        return {"result": self.engine.batch_transfer_sync(segment, *self.lists(items), opcode, note)}

    def background(self, op, segment, items):
        call = self.engine.batch_transfer_async_write if op == "write" else self.engine.batch_transfer_async_read
        batch = call(segment, *self.lists(items))
        return {"batch": batch, "result": self.engine.get_batch_transfer_status([batch]) if batch else -1}

    def single(self, op, segment, items):
        call = self.engine.transfer_sync_write if op == "write" else self.engine.transfer_sync_read
        return {"result": max((abs(call(segment, *map(int, item))) for item in zip(*self.lists(items))), default=0)}

    def first_buffer(self, segment):
        return {"address": self.engine.get_first_buffer_address(segment)}

    def probe(self, segment):
        return {"result": self.engine.send_probe(segment)}

    def notifies(self):
        return {"messages": [[note.name, note.msg] for note in self.engine.get_notifies()]}


def main():
    # Replies go to the inherited stdout only; whatever a library prints goes to the log.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    commands = Commands()
    print(json.dumps({"segment": commands.segment}), file=replies)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(commands, command.pop("do"))(**command)), file=replies)


if __name__ == "__main__":
    main()
