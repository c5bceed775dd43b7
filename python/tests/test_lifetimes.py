"""Threads, the GIL, garbage, forks, signals, and the end of the interpreter, each while transfers run."""

import gc
import os
import signal
import threading
import weakref

import mooncake_te as te
import pytest
import rig
from mooncake.engine import TransferEngine

# Far more than sockets hold, so a transfer to a stopped peer hangs.
LENGTH = 64 << 20

PREAMBLE = """
import os, signal, sys, threading
import mooncake_te as te
from mooncake.engine import TransferEngine
name, remote, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = te.Engine("127.0.0.1", protocol="tcp")
region = engine.allocate(length)
segment = engine.open(name)
segment.write(region.address, remote, 8)
compatible = TransferEngine()
assert compatible.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
address = compatible.allocate_managed_buffer(length)
assert compatible.transfer_sync_write(name, address, remote, 8) == 0
"""


@pytest.fixture
def target():
    with rig.Peer("ours", LENGTH) as target:
        yield target


class Caller(threading.Thread):
    """Calls something and keeps how it ended."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.began, self.end = call, threading.Event(), None
        self.start()
        self.began.wait()

    def run(self):
        self.began.set()
        try:
            self.end = self.call()
        except Exception as error:
            self.end = error

    def result(self):
        self.join(60)
        assert not self.is_alive()
        return self.end


def test_the_interpreter_runs_while_a_transfer_waits(engine, target, compatible):
    """Only because the GIL is released can this thread let the peer go on."""
    data = rig.memory(LENGTH)
    region = engine.register(data)
    segment = engine.open(target.segment)
    segment.write(region.address, target.address, 8)
    other, _ = compatible
    again = rig.memory(LENGTH)
    assert other.register_memory(again.ctypes.data, LENGTH) == 0
    batch = other.batch_transfer_async_write(target.segment, [again.ctypes.data], [target.address], [8])
    assert other.get_batch_transfer_status([batch]) == 0
    waits = {
        "write": (lambda: segment.write(region.address, target.address, LENGTH), None),
        "wait": (lambda: segment.submit_write([region.address], [target.address], [LENGTH]).wait(), None),
        "sync": (lambda: other.transfer_sync_write(target.segment, again.ctypes.data, target.address, LENGTH), 0),
        "batch": (
            lambda: other.get_batch_transfer_status([other.transfer_submit_write(target.segment, again.ctypes.data, target.address, LENGTH)]),
            0,
        ),
    }
    for name, (call, expected) in waits.items():
        target.stop()
        caller = Caller(call)
        assert caller.is_alive()
        target.go_on()
        assert caller.result() == expected, name


def test_many_threads_share_an_engine(engine, target, compatible):
    other, _ = compatible
    data = rig.memory(1 << 20, seed=1)
    assert other.register_memory(data.ctypes.data, len(data)) == 0
    engine.register(data)
    segment = engine.open(target.segment)

    def work(index):
        for round in range(50):
            at = (index * 50 + round) * 100
            segment.write(data.ctypes.data + at, target.address + at, 100)
            assert other.transfer_sync_read(target.segment, data.ctypes.data + at, target.address + at, 100) == 0
            batch = other.batch_transfer_async_write(target.segment, [data.ctypes.data + at], [target.address + at], [100])
            assert other.get_batch_transfer_status([batch]) == 0
            buffer = other.allocate_managed_buffer(5000)
            assert buffer and other.free_managed_buffer(buffer, 5000) == 0
        return "done"

    callers = [Caller(lambda index=index: work(index)) for index in range(8)]
    assert [caller.result() for caller in callers] == ["done"] * 8
    segment.read(data.ctypes.data, target.address, 8 * 50 * 100)
    assert data[: 8 * 50 * 100].tobytes() == rig.pattern(1, 1 << 20)[: 8 * 50 * 100]


def test_closing_an_engine_ends_the_calls_of_other_threads(engine, target):
    region = engine.allocate(LENGTH)
    segment = engine.open(target.segment)
    segment.write(region.address, target.address, 8)
    target.stop()
    batch = segment.submit_write([region.address], [target.address], [LENGTH])
    callers = [Caller(lambda: segment.write(region.address, target.address, LENGTH)), Caller(batch.wait)]
    engine.close()
    for caller in callers:
        assert isinstance(caller.result(), te.TransferEngineError)


def test_an_engine_is_collected_only_after_the_calls_of_other_threads(target):
    engine = te.Engine("127.0.0.1", protocol="tcp")
    region, segment = engine.allocate(LENGTH), engine.open(target.segment)
    segment.write(region.address, target.address, 8)
    other = TransferEngine()
    assert other.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    buffer = other.allocate_managed_buffer(LENGTH)
    assert other.transfer_sync_write(target.segment, buffer, target.address, 8) == 0
    gone = weakref.ref(engine), weakref.ref(other)
    target.stop()
    callers = [
        Caller(lambda segment=segment, address=region.address: segment.write(address, target.address, LENGTH)),
        Caller(lambda other=other: other.transfer_sync_write(target.segment, buffer, target.address, LENGTH)),
    ]
    del engine, region, segment, other
    gc.collect()
    assert all(reference() is not None for reference in gone)
    target.go_on()
    assert [caller.result() for caller in callers] == [None, 0]
    del callers
    gc.collect()
    assert all(reference() is None for reference in gone)


def test_a_batch_that_is_dropped_while_it_runs_is_finished_and_freed(engine, target):
    region = engine.allocate(LENGTH)
    segment = engine.open(target.segment)
    segment.write(region.address, target.address, 8)
    target.stop()
    segment.submit_write([region.address], [target.address], [LENGTH])
    gc.collect()
    assert len(engine._dropped) == 1
    target.go_on()
    while engine._dropped:
        segment.write(region.address, target.address, 8)


ENDS = {
    "of the main thread": "segment.submit_write([region.address], [remote], [length])",
    "with a daemon in a call": """
began = threading.Event()
def work(call):
    began.set()
    call()
for call in (
    lambda: segment.write(region.address, remote, length),
    lambda: compatible.transfer_sync_write(name, address, remote, length),
):
    threading.Thread(target=work, args=[call], daemon=True).start()
    began.wait()
    began.clear()
""",
    "in the background": """
batch = compatible.batch_transfer_async_write(name, [address], [remote], [length])
ticket = compatible.submit_scatter_write(name, [address], [length], [remote], [length], [[0]], [[0]], [[length]])
held = segment.submit_write([region.address], [remote], [length])
""",
    "by an exception": "batch = segment.submit_write([region.address], [remote], [length]); raise SystemExit(0)",
    "with closed engines": "engine.close(); del compatible",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_ends_while_transfers_run(end, target):
    # The stopped peer keeps everything running; engines take two seconds each at most.
    script = PREAMBLE + "os.kill(int(sys.argv[4]), signal.SIGSTOP)\n" + ENDS[end]
    ended = rig.run(script, target.segment, target.address, LENGTH, target.pid, seconds=60)
    # A daemon may still see its transfer end, by the engine's, and print that.
    assert ended.returncode == 0 and "Fatal" not in ended.stderr, ended.stderr


FORK = """
child = os.fork()
if child == 0:
    code = 1
    try:
        segment.write(region.address, remote, 8)
    except te.TransferEngineError:
        failed = compatible.transfer_sync_write(name, address, remote, 8) == -1
        failed = failed and compatible.batch_transfer_async_write(name, [address], [remote], [8]) == 0
        failed = failed and compatible.get_rpc_port() == -1
        with te.Engine("127.0.0.1", protocol="tcp") as own, own.open(name) as peer:
            piece = own.allocate(100)
            peer.write(piece, remote)
        code = 0 if failed else 2
    if END == "exit":
        sys.exit(code)
    os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
segment.write(region.address, remote, 8)
assert compatible.transfer_sync_write(name, address, remote, 8) == 0
"""


@pytest.mark.parametrize("end", ["exit", "_exit"])
def test_a_forked_child_cannot_use_engines_of_its_parent_but_makes_its_own(end, target):
    ended = rig.run(PREAMBLE + f"END = {end!r}\n" + FORK, target.segment, target.address, 1 << 20)
    assert ended.returncode == 0, ended.stderr


# A shell that runs the tests in the background has them ignore the signal.
INTERRUPTED = """
signal.signal(signal.SIGINT, signal.default_int_handler)
os.kill(int(sys.argv[4]), signal.SIGSTOP)
try:
    print("calling", flush=True)
    CALL
except KeyboardInterrupt:
    print("interrupted", flush=True)
os.kill(int(sys.argv[4]), signal.SIGCONT)
segment.write(region.address, remote, 8)
"""


@pytest.mark.parametrize(
    "call",
    [
        "segment.write(region.address, remote, length)",
        "segment.submit_write([region.address], [remote], [length]).wait()",
        "compatible.get_batch_transfer_status([compatible.batch_transfer_async_write(name, [address], [remote], [length])])",
        "compatible.batch_transfer_sync_write(name, [address] * 100, [remote] * 100, [length] * 100)",
    ],
)
def test_control_c_ends_a_wait(call, target):
    process = rig.start(PREAMBLE + INTERRUPTED.replace("CALL", call), target.segment, target.address, LENGTH, target.pid)
    assert process.stdout.readline() == "calling\n"
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("interrupted\n", 0), err
