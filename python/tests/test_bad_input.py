"""Nothing that is passed to either package ends the interpreter: random arguments, in a process of its own."""

import pytest
import rig

FUZZ = """
import ctypes, random, sys
import numpy
import mooncake_te as te
from mooncake import engine as module

random.seed(int(sys.argv[1]))
one = te.Engine("127.0.0.1", protocol="tcp")
two = te.Engine("127.0.0.1", protocol="tcp")
region, other = one.allocate(1 << 16), two.allocate(1 << 16)
segment = one.open(two.name)
compatible = module.TransferEngine()
assert compatible.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
buffer = compatible.allocate_managed_buffer(1 << 16)
A, B = region.address, other.address
INTS = [0, 1, -1, 8, 64, 4096, A, B, buffer, A + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -2**63, 10**30, True]
ODD = [None, 1.5, float("nan"), "x", "", "a\\0b", "\\ud800", b"x", bytearray(8), memoryview(b"12345678"), [], {}, set(), (), object(), range(3), iter([1]), 1j]
ARRAYS = [numpy.array(values).astype(kind) for values in ([], [A], [B], [8], [A, A], [[A, 8, B, 8, 8]], [-1], [[1, 2]], 5)
          for kind in ("u8", "i8", "f8", "i4", ">i8", "?", "O")] + [numpy.arange(10)[::2], numpy.zeros((2, 5), dtype="i8").T, numpy.zeros(3, dtype="V8")]
ENUMS = [module.Read, module.Write, module.TransferOpcode(9), module.TransferNotify("a", "b")]
NAMES = [one.name, two.name, f"127.0.0.1:{compatible.get_rpc_port()}", "127.0.0.1:1"]

def value(depth=0):
    kind = random.randrange(8)
    if kind < 3:
        return random.choice(INTS)
    if kind == 3:
        return random.choice(ODD)
    if kind == 4:
        return random.choice(ARRAYS)
    if kind == 5 and depth < 3:
        return [value(depth + 1) for _ in range(random.randrange(4))]
    if kind == 6:
        return random.choice(ENUMS)
    return random.choice(NAMES)

def lists():
    return [random.choice([A, B, buffer, 8, random.choice(INTS)]) for _ in range(random.choice([1, 1, 1, 2]))]

# Waits without an end of their own, and the end of an engine, are not what is tried here.
SKIP = {"close", "initialize", "initialize_ext", "drain", "wait", "ended"}
batch = segment.submit_write([A], [B], [8])
objects = [compatible, one, segment, region, batch, module.TransferNotify(), module.SharedSegment, te]
methods = [(thing, name) for thing in objects for name in dir(thing)
           if not name.startswith("_") and name not in SKIP and callable(getattr(thing, name)) and not isinstance(getattr(thing, name), type)]
kinds = [module.TransferOpcode, module.ScatterTransferCompletionStatus, module.TransferNotify, module.InnerTransferEngine]
calls = raised = 0
for _ in range(int(sys.argv[2])):
    if random.randrange(20) == 0:
        function = random.choice(kinds)
    else:
        thing, name = random.choice(methods)
        function = getattr(thing, name)
    shape = random.randrange(4)
    arguments = [value() for _ in range(random.choice([0, 1, 2, 3, 3, 4, 4, 5, 8]))]
    if shape == 0:
        arguments = [random.choice(NAMES), lists(), lists(), [random.choice([8, 100, 1 << 20]) for _ in range(2)]][: random.choice([1, 4])] + arguments[:2]
    elif shape == 1:
        arguments = [random.choice(INTS) for _ in range(random.choice([1, 2, 3]))]
    calls += 1
    try:
        function(*arguments)
    except Exception:
        raised += 1
# The registrations are not what they were; new engines work as ever.
for thing in (one, two):
    thing.close()
one, two = te.Engine("127.0.0.1", protocol="tcp"), te.Engine("127.0.0.1", protocol="tcp")
region, other = one.allocate(1 << 16), two.allocate(1 << 16)
one.open(two.name).write(region, other.address)
assert compatible.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
buffer = compatible.allocate_managed_buffer(1 << 16)
assert compatible.transfer_sync_write(f"127.0.0.1:{compatible.get_rpc_port()}", buffer, buffer + 100, 100) == 0
print(calls, raised)
"""


@pytest.mark.parametrize("seed", range(4))
def test_random_arguments_never_end_the_interpreter(seed):
    ended = rig.run(FUZZ, seed, 6000, seconds=240)
    assert ended.returncode == 0, f"{ended.returncode}\n{ended.stderr[-3000:]}"
    calls, raised = map(int, ended.stdout.split())
    assert calls == 6000 and calls / 4 < raised < calls
