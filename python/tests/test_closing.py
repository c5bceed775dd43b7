"""Closing an engine in one thread while others use it: nobody goes on before the engine is destroyed, as it writes until then."""

import threading

import mooncake_te as te
import numpy
import pytest
import rig
from mooncake.engine import TransferEngine
from mooncake_te._lib import lib
from mooncake_te._pool import SLAB

SIZE = 1 << 20


class Destroy:
    """destroyTransferEngine, which has closed the engine but does not return before `go`."""

    def __init__(self):
        self.real, self.inside, self.go, self.log = lib.destroyTransferEngine, threading.Event(), threading.Event(), []

    def __call__(self, handle):
        self.real(handle)
        self.inside.set()
        assert self.go.wait(60)
        self.log.append("destroyed")

    def order(self, life, closing, calls):
        """What ended in which order: the destruction, which `closing` begins, and the calls, which begin in the middle of it."""

        def run(name, call):
            try:
                call()
            except te.TransferEngineError:
                pass
            self.log.append(name)

        threads = [threading.Thread(target=run, args=("closing", closing), daemon=True)]
        threads[0].start()
        assert self.inside.wait(60)
        for name, call in calls.items():
            threads.append(threading.Thread(target=run, args=(name, call), daemon=True))
            threads[-1].start()
        # Each call waits at a gate of its own now, or has gone on too early.
        while len(life._gates) + len(self.log) < len(calls):
            pass
        self.go.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.log


@pytest.fixture
def destroy(monkeypatch):
    destroy = Destroy()
    monkeypatch.setattr(lib, "destroyTransferEngine", destroy)
    yield destroy
    destroy.go.set()


def test_whoever_finds_an_engine_closed_waits_until_it_is_destroyed(destroy, peer):
    engine = te.Engine("127.0.0.1", protocol="tcp")
    data = bytearray(SIZE)
    region, segment = engine.register(data), engine.open(peer.segment)
    batches = [segment.submit_read([region.address], [peer.address], [SIZE]) for _ in range(3)]
    here = numpy.array([region.address])
    calls = {
        "Batch.close": batches[0].close,
        "Batch.wait": batches[1].wait,
        "Batch.status": batches[2].status,
        "Region.close": region.close,
        "Engine.close": engine.close,
        "Engine.register": lambda: engine.register(bytearray(5)),
        "write": lambda: segment.write(region, peer.address),
        "read_batch": lambda: segment.read_batch(here, here, here),
    }
    log = destroy.order(engine._life, engine.close, calls)
    assert log[0] == "destroyed" and sorted(log[1:]) == sorted(["closing", *calls])
    data.extend(b"x")


def test_a_call_that_fails_because_the_engine_is_being_closed_waits_too(destroy, peer):
    """Threads that began their calls before: they hold the handle, and C refuses it."""
    engine = te.Engine("127.0.0.1", protocol="tcp")
    region, segment = engine.allocate(SIZE), engine.open(peer.segment)
    batches = [segment.submit_read([region.address], [peer.address], [SIZE]) for _ in range(2)]
    handle = engine._handle

    def late(call):
        def run():
            engine._life.handle = handle
            call()

        return run

    calls = {
        "Batch.close": late(batches[0].close),
        "Batch.wait": late(batches[1].wait),
        "Region.close": late(region.close),
        "write": late(lambda: segment.write(region.address, peer.address, SIZE)),
        "open": late(lambda: engine.open(peer.segment)),
    }
    log = destroy.order(engine._life, engine.close, calls)
    assert log[0] == "destroyed" and len(log) == 2 + len(calls)


def test_calls_of_mooncake_engine_wait_for_the_end_of_the_engine_that_is_replaced(destroy, peer):
    engine = TransferEngine()
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    inner = engine.get_engine()
    address, large = engine.allocate_managed_buffer(SIZE), engine.allocate_managed_buffer(SLAB + 1)
    data = rig.memory(SIZE)
    assert engine.register_memory(data.ctypes.data, SIZE) == 0
    batches = [engine.batch_transfer_async_read(peer.segment, [address], [peer.address], [SIZE]) for _ in range(2)]
    ended, results = [], {}
    calls = {
        "get_batch_transfer_status": lambda: engine.get_batch_transfer_status(batches[:1]),
        "transfer_check_status": lambda: engine.transfer_check_status(batches[1]),
        "transfer_sync_read": lambda: engine.transfer_sync_read(peer.segment, address, peer.address, SIZE),
        "unregister_memory": lambda: engine.unregister_memory(data.ctypes.data),
        "free_managed_buffer": lambda: engine.free_managed_buffer(large, SLAB + 1),
        "scatter_transfer_sync": lambda: engine.scatter_transfer_sync_read_with_ticket(
            peer.segment, [address], [SIZE], [peer.address], [SIZE], [[0]], [[0]], [[SIZE]]
        ),
        "finalizer": inner._life.end,
    }
    started = {name: lambda name=name, call=call: results.update({name: call()}) for name, call in calls.items()}
    log = destroy.order(inner._life, lambda: ended.append(engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "")), started)
    assert log[0] == "destroyed" and len(log) == 2 + len(calls)
    assert ended == [0] and engine.get_engine() is not inner
    assert results["get_batch_transfer_status"] == results["transfer_sync_read"] == -1 and results["unregister_memory"] != 0


FORKED = """
import os, threading
import mooncake_te as te
from mooncake_te._lib import lib
inside, go, real = threading.Event(), threading.Event(), lib.destroyTransferEngine
def destroy(handle):
    inside.set()
    go.wait()
    real(handle)
lib.destroyTransferEngine = destroy
engine, other = (te.Engine("127.0.0.1", protocol="tcp") for _ in range(2))
data = bytearray(4096)
region, segment, again = engine.allocate(4096), engine.open(engine.name), other.register(data)
batch = segment.submit_write([region.address], [region.address], [8])
threads = [threading.Thread(target=engine.close) for _ in range(3)]
threads[0].start()
inside.wait()
for thread in threads[1:]:
    thread.start()
while len(engine._life._gates) < 2:
    pass
child = os.fork()
if child == 0:
    lib.destroyTransferEngine = real
    with engine, segment, region, batch, other, again:
        pass
    data.extend(b"x")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
go.set()
"""


def test_a_forked_child_leaves_what_its_parent_is_closing_in_silence():
    ended = rig.run(FORKED)
    assert ended.returncode == 0 and not ended.stderr, ended.stderr


LEFT = """
import os
import mooncake_te as te
engine = te.Engine("127.0.0.1", protocol="tcp")
data = bytearray(4096)
region, segment = engine.register(data), engine.open(engine.name)
batch = segment.submit_write([region.address], [region.address], [8])
child = os.fork()
if child == 0:
    with engine, segment, batch, region:
        pass
    data.extend(b"x")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
segment.write(region, region.address, 8)
region.close()
"""


def test_a_forked_child_leaves_the_with_blocks_of_its_parent_in_silence():
    ended = rig.run(LEFT)
    assert ended.returncode == 0 and not ended.stderr, ended.stderr


AGAIN = """
import signal
import mooncake_te as te
from mooncake_te._lib import lib
engine = te.Engine("127.0.0.1", protocol="tcp")
region = engine.allocate(4096)
real = lib.destroyTransferEngine
def handler(*_):
    engine.close()
    region.close()
def destroy(handle):
    signal.raise_signal(signal.SIGUSR1)
    real(handle)
lib.destroyTransferEngine = destroy
signal.signal(signal.SIGUSR1, handler)
engine.close()
print("closed")
"""


def test_a_signal_handler_that_closes_an_engine_does_not_wait_for_its_own_thread():
    ended = rig.run(AGAIN)
    assert (ended.returncode, ended.stdout) == (0, "closed\n"), ended.stderr


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_close_still_ends_the_engine(after, monkeypatch):
    engine = te.Engine("127.0.0.1", protocol="tcp")
    name, data, real, calls = engine.name, bytearray(4096), lib.destroyTransferEngine, []
    engine.register(data)

    def destroy(handle):
        calls.append(handle)
        if after or len(calls) > 1:
            real(handle)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(lib, "destroyTransferEngine", destroy)
    with pytest.raises(KeyboardInterrupt):
        engine.close()
    data.extend(b"x")
    again = threading.Thread(target=engine.close, daemon=True)
    again.start()
    again.join(60)
    assert not again.is_alive() and engine.closed and calls == [calls[0]] * 2
    monkeypatch.undo()
    with te.Engine("127.0.0.1", protocol="tcp") as other:
        assert not other.is_alive(name)


def test_memory_that_others_register_and_close_during_the_end_is_let_go(monkeypatch):
    engine = te.Engine("127.0.0.1", protocol="tcp")
    blocks = [bytearray(4096) for _ in range(20)]
    regions = [engine.register(block) for block in blocks[:10]]
    real, inside, go = te._engine.Exported.release, threading.Event(), threading.Event()
    first = threading.Lock()

    def release(held):
        if first.acquire(blocking=False):  # in the middle of letting go of all
            inside.set()
            assert go.wait(60)
        real(held)

    monkeypatch.setattr(te._engine.Exported, "release", release)
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    assert inside.wait(60)
    # What threads do that were past their C calls when the end began.
    for region in regions[:5]:
        engine._held.pop(id(region._held), None)
        real(region._held)
    late = [te._engine.Exported(block) for block in blocks[10:]]
    engine._held.update((id(held), held) for held in late)
    go.set()
    closing.join(60)
    assert not closing.is_alive() and not engine._held
    for block in blocks:
        block.extend(b"x")


def test_a_registration_that_the_end_overtakes_is_refused_and_its_memory_free(monkeypatch):
    engine = te.Engine("127.0.0.1", protocol="tcp")
    real, data = lib.registerLocalMemory, bytearray(4096)

    def register(*arguments):
        result = real(*arguments)
        engine.close()
        return result

    monkeypatch.setattr(lib, "registerLocalMemory", register)
    with pytest.raises(te.EngineClosedError):
        engine.register(data)
    data.extend(b"x")
    assert not engine._held
