"""Memory that engines of other processes can map: its buffer, its end, and transfers through it."""

import gc
import os
import subprocess
import sys
import threading

import mooncake_te as te
import numpy
import pytest
import rig

LENGTH = 10_000


def mapped(process="self"):
    with open(f"/proc/{process}/maps") as maps:
        return sum("mte-shared" in line for line in maps)


@pytest.fixture(autouse=True)
def nothing_is_left():
    gc.collect()
    assert mapped() == 0
    yield
    gc.collect()
    assert mapped() == 0


def test_it_is_registered_memory_of_zeros_with_a_buffer(engine, target):
    with engine.allocate_shared(LENGTH, location="cpu:0") as region, target.allocate(LENGTH) as there, engine.open(target.name) as peer:
        assert (len(region), region.view.nbytes, region.readonly) == (LENGTH, LENGTH, False)
        assert bytes(region.view) == bytes(LENGTH)
        assert [(b.address, b.length) for b in target.open(engine.name).buffers] == [(region.address, LENGTH)]
        array = numpy.frombuffer(region.view, dtype=numpy.uint8)
        assert array.ctypes.data == region.address
        array[:] = numpy.frombuffer(rig.pattern(1, LENGTH), dtype=numpy.uint8)
        peer.write(array, there.address)
        assert bytes(there.view) == rig.pattern(1, LENGTH)
        there.view[:] = rig.pattern(2, LENGTH)
        peer.read(region, there.address)
        assert array.tobytes() == rig.pattern(2, LENGTH)
        with pytest.raises(te.ArgumentError):
            engine.register(array)  # it is already


def test_views_and_arrays_keep_it_and_the_last_one_frees_it(engine):
    region = engine.allocate_shared(LENGTH, huge=True)
    view, array = region.view, numpy.frombuffer(region.view, dtype=numpy.int64, count=10)[5:]
    address = region.address
    region.close()
    region.close()
    with pytest.raises(te.EngineClosedError):
        region.view  # noqa: B018
    view[0], array[0] = 7, -1
    del region
    gc.collect()
    assert mapped() == 1 and view[0] == 7
    assert engine.descriptor()["buffers"] == []
    with engine.register(view) as again:  # any buffer may be registered
        assert again.address == address
    del view, again
    gc.collect()
    assert mapped() == 1 and array[0] == -1
    del array
    assert mapped() == 0


@pytest.mark.parametrize("end", ["closed", "dropped"])
def test_it_outlives_its_engine(end):
    engine = te.Engine("127.0.0.1", protocol="tcp")
    kept = engine.allocate_shared(LENGTH)
    engine.allocate_shared(LENGTH)
    view = kept.view
    assert mapped() == 2
    if end == "closed":
        engine.close()
        assert mapped() == 1
        kept.close()
    del engine, kept
    gc.collect()
    assert mapped() == 1
    view[LENGTH - 1] = 1


def test_it_is_mapped_by_engines_of_other_processes():
    with te.Engine("127.0.0.1", protocol="shm") as engine, rig.Peer(environment={"MC_SAME_HOST": "1"}) as peer:
        segment, region = engine.open(peer.segment), engine.allocate_shared(1 << 20, numa_node=0)
        region.view[:] = rig.pattern(3, 1 << 20)
        segment.write(region, peer.address)
        assert mapped(peer.pid) == 1
        back = rig.memory(1 << 20)
        with engine.register(back):
            segment.read(back, peer.address)
        assert back.tobytes() == rig.pattern(3, 1 << 20)


def test_a_forked_child_shares_it_and_frees_nothing(engine):
    region = engine.allocate_shared(LENGTH)
    view = region.view
    child = os.fork()
    if child == 0:
        try:
            view[0] = 5
            view.release()
            region.close()
            del view, region
            gc.collect()
            os._exit(mapped())
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert view[0] == 5


def test_what_cannot_be_allocated_is_an_exception(engine):
    for arguments in {"length": 0}, {"length": -1}, {"length": 2**64}, {"length": 1, "numa_node": -1}, {"length": 1, "numa_node": 2**31}:
        with pytest.raises(te.ArgumentError):
            engine.allocate_shared(**arguments)
    with pytest.raises(te.TransferEngineError) as caught:
        engine.allocate_shared(1, numa_node=9999)
    assert caught.value.code == -300 and "9999" in caught.value.text
    with pytest.raises(te.ResourceError):
        engine.allocate_shared(1 << 62)
    for arguments in {"length": 1.0}, {"length": "1"}, {"length": 1, "numa_node": 0.0}, {"length": 1, "location": b"cpu:0"}:
        with pytest.raises(TypeError):
            engine.allocate_shared(**arguments)
    with pytest.raises(ValueError, match="NUL"):
        engine.allocate_shared(1, location="a\0b")
    engine.close()
    with pytest.raises(te.EngineClosedError):
        engine.allocate_shared(1)


def test_threads_allocate_and_free_at_once(engine):
    def work():
        for size in range(1, 40):
            with engine.allocate_shared(size * 1000) as region:
                region.view[-1] = size

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_interpreter_ends_while_a_thread_uses_it():
    script = """
import threading
import mooncake_te as te
engine = te.Engine("127.0.0.1", protocol="tcp")
view, began = engine.allocate_shared(1 << 20).view, threading.Event()
def use(mine):
    while True:
        mine[:] = bytes(1 << 20)
        began.set()
threading.Thread(target=use, args=(view,), daemon=True).start()
began.wait()
"""
    assert subprocess.run([sys.executable, "-c", script], env=rig.ENVIRONMENT, timeout=60).returncode == 0
