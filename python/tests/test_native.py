"""mooncake_te: engines, regions, segments, batches, exceptions."""

import array
import ctypes
import mmap
import pickle
import select

import mooncake_te as te
import numpy
import pytest
import rig
from mooncake_te._lib import lib

SIZE = 1 << 20


@pytest.fixture
def there(target):
    return target.allocate(SIZE)


@pytest.fixture
def peer_of(engine, target, there):
    with engine.open(target.name) as segment:
        yield segment


def test_any_memory_with_a_buffer_is_written_and_read(engine, peer_of, there):
    for seed, make in enumerate((bytearray, lambda data: rig.memory(len(data), None), lambda data: mmap.mmap(-1, len(data)))):
        data = rig.pattern(seed, 8192)
        local = make(data)
        memoryview(local).cast("B")[:] = data
        with engine.register(local) as region:
            peer_of.write(local, there.address)
            assert bytes(there.view[:8192]) == data
            there.view[:8192] = data[::-1]
            peer_of.read(region, there.address)
            assert bytes(memoryview(local).cast("B")) == data[::-1]


def test_a_tensor_is_taken_by_its_address(engine, peer_of, there):
    class Tensor:  # what is asked of a torch tensor
        device = type("Device", (), {"type": "cpu"})()

        def __init__(self, values):
            self.values = values

        def data_ptr(self):
            return self.values.ctypes.data

        def numel(self):
            return self.values.size

        def element_size(self):
            return self.values.itemsize

        def is_contiguous(self):
            return True

        def numpy(self):
            return self.values

        def __len__(self):
            return len(self.values)

        def __getitem__(self, index):
            return self.values[index]

    tensor = Tensor(numpy.arange(1000, dtype=numpy.float32))
    engine.register(tensor)
    peer_of.write(tensor, there.address)
    assert bytes(there.view[:4000]) == tensor.values.tobytes()
    addresses, targets, lengths = (Tensor(numpy.array([n], dtype=numpy.int64)) for n in (tensor.data_ptr(), there.address + 4000, 4000))
    peer_of.write_batch(addresses, targets, lengths)
    assert bytes(there.view[4000:8000]) == tensor.values.tobytes()
    Tensor.device = type("Device", (), {"type": "cuda"})()
    with pytest.raises(TypeError, match="CPU"):
        engine.register(tensor)


def test_torch_tensors(engine, peer_of, there):
    torch = pytest.importorskip("torch", reason="torch is not installed: 200 MB for one test; the test above stands in for it")
    tensor = torch.arange(4096, dtype=torch.bfloat16)
    engine.register(tensor)
    peer_of.write(tensor, there.address)
    assert bytes(there.view[:8192]) == bytes(tensor.view(torch.uint8).numpy())


def test_lists_and_arrays_move_the_same(engine, peer_of, there):
    data = rig.memory(SIZE, seed=5)
    engine.register(data)
    count = 1000
    local = [data.ctypes.data + 64 * i for i in range(count)]
    remote = [there.address + 128 * i for i in range(count)]
    lengths = [64] * count
    forms = (
        (local, remote, lengths),
        (tuple(local), range(remote[0], remote[-1] + 1, 128), numpy.array(lengths, dtype=numpy.int32)),
        tuple(numpy.array(column, dtype=numpy.uint64) for column in (local, remote, lengths)),
        tuple(array.array("q", column) for column in (local, remote, lengths)),
        tuple(memoryview(numpy.array(column, dtype=numpy.int64)).toreadonly() for column in (local, remote, lengths)),
    )
    for columns in forms:
        there.view[:] = bytes(SIZE)
        peer_of.write_batch(*columns)
        found = numpy.frombuffer(there.view, dtype=numpy.uint8)[: 128 * count].reshape(count, 128)
        assert (found[:, :64].reshape(-1) == data[: 64 * count]).all() and not found[:, 64:].any()
        back = rig.memory(SIZE)
        with engine.register(back):
            peer_of.read_batch([back.ctypes.data + 64 * i for i in range(count)], columns[1], columns[2])
        assert (back[: 64 * count] == data[: 64 * count]).all()


def test_pages_move_as_the_same_requests_one_by_one(engine, peer_of, there):
    data = rig.memory(SIZE, seed=6)
    engine.register(data)
    fields = numpy.array([[data.ctypes.data, 4096, there.address, 8192, 100], [data.ctypes.data + 2048, 4096, there.address + 4096, 8192, 50]])
    here, away = numpy.array([0, 3, 5]), numpy.array([7, 1, 2])
    peer_of.write_pages(here, away, fields, max_batch_size=2)
    expected = bytearray(SIZE)
    for base, away_base, length in ((0, 0, 100), (2048, 4096, 50)):
        for i, j in zip(here, away):
            start = away_base + j * 8192
            expected[start : start + length] = data[base + i * 4096 : base + i * 4096 + length].tobytes()
    assert bytes(there.view) == bytes(expected)
    data[:] = 0
    peer_of.read_pages(here, away, fields)
    assert data[3 * 4096 : 3 * 4096 + 100].tobytes() == bytes(expected[8192 : 8192 + 100])


def test_a_batch_tells_all_of_itself_and_its_notification_arrives(engine, target, peer_of, there):
    data = rig.memory(4096, seed=7)
    engine.register(data)
    note = te.Notification("done", "it ïs")
    with peer_of.submit_write([data.ctypes.data] * 3, [there.address + 4096 * i for i in range(3)], [4096] * 3, notify=note) as batch:
        assert select.select([batch], [], [], 30)[0]
        batch.wait(timeout=30)
        assert batch.done and batch.status() == te.Status(3, 3, 0, 3 * 4096)
        assert batch.task_statuses() == [("completed", 4096)] * 3
        report = batch.report(2)
        assert report.status == "completed" and report.completed_us >= report.posted_us >= 0
        assert batch.drained() is te.Drained.YES and batch.drained(1) is te.Drained.YES
        with pytest.raises(te.ArgumentError):
            batch.report(3)
        with pytest.raises(IndexError):
            batch.report(-1)
    with pytest.raises(te.EngineClosedError):
        batch.status()
    batch.close()
    peer_of.notify("direct", "too")  # a delivery to a peer waits for the ones before it, so the first is there as well
    assert sorted(target.notifications()) == [("direct", "too"), ("done", "it ïs")]
    assert target.notifications() == []
    with peer_of.submit_read([], [], []) as nothing:
        nothing.wait()


def test_a_notification_that_c_cannot_take_is_refused_before_a_batch_is_made(peer_of, there, monkeypatch):
    made = []
    monkeypatch.setattr(lib, "allocateBatchID", lambda *arguments: made.append(arguments))
    for note in (te.Notification("a\0b", "c"), te.Notification("a", "\ud800")):
        with pytest.raises(ValueError):
            peer_of.submit_write([there.address], [there.address], [1], notify=note)
    assert not made


def test_p18_metrics_count_what_was_moved(engine, target):
    memory = bytearray(100)
    with target.register(bytearray(100)), engine.register(memory), engine.open(target.name, fresh=True) as segment:
        before = te.metrics()
        segment.write(memory, segment.buffers[0])
        after = te.metrics()
    grown = {name: after[name] - before[name] for name in before if name.startswith("mooncake_te_write_") and name.endswith("_total")}
    assert grown == {
        "mooncake_te_write_bytes_total": 100,
        "mooncake_te_write_requests_total": 1,
        "mooncake_te_write_failures_total": 0,
        "mooncake_te_write_timeouts_total": 0,
    }
    assert "# TYPE mooncake_te_write_bytes_total counter\n" in te.metrics_text()


def test_names_and_texts(engine, target):
    assert engine.name == engine.address == f"127.0.0.1:{engine.port}"
    assert engine.descriptor()["protocol"] == "tcp"
    assert isinstance(engine.topology(), dict) and "cpu:0" in te.discover_topology()
    assert engine.nic_loads() == [] and engine.links() is not None
    assert engine.is_alive(target.name) and not engine.is_alive("127.0.0.1:1")
    region = target.register(bytearray(100), location="cpu:0")
    with engine.open(target.name, fresh=True) as segment:
        assert [(b.address, b.length) for b in segment.buffers] == [(region.address, 100)]
        many = [target.allocate(4096) for _ in range(40)]
        engine.sync_segments()
        assert {r.address for r in many} < {b.address for b in segment.buffers}


FAILURES = {
    "not registered here": (lambda p, a, r: p.write(a + (1 << 30), r, 1), te.ArgumentError, -3),
    "not registered there": (lambda p, a, r: p.write(a, 4096, 1), te.ArgumentError, -3),
    "NULL": (lambda p, a, r: p.write(0, r, 1), te.ArgumentError, -3),
    "lengths differ": (lambda p, a, r: p.write_batch([a], [r], [1, 2]), te.ArgumentError, -1),
    "no length": (lambda p, a, r: p.write(a, r), te.ArgumentError, -1),
    "longer than the memory": (lambda p, a, r: p.write(bytearray(5), r, 6), te.ArgumentError, -1),
    "into what is read-only": (lambda p, a, r: p.read(b"12345", r), te.ArgumentError, -1),
    "pages that overflow": (
        lambda p, a, r: p.write_pages(numpy.array([2**62]), numpy.array([0]), numpy.array([[a, 2**62, r, 1, 1]])),
        te.ArgumentError,
        -1,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_an_exception_with_code_and_text(case, engine, peer_of, there):
    data = bytearray(4096)
    region = engine.register(data)
    call, kind, code = FAILURES[case]
    with pytest.raises(kind) as caught:
        call(peer_of, region.address, there.address)
    error = caught.value
    assert error.code == code and error.error_class is te.ErrorClass.ARGUMENT and not error.retryable
    assert error.text and str(code) in str(error) and isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.code) == (kind, str(error), code)


WRONG_TYPES = {
    "negative": lambda p, a, r: p.write(a, -1, 1),
    "huge": lambda p, a, r: p.write(a, 1 << 64, 1),
    "float": lambda p, a, r: p.write(a, 1.0, 1),
    "text": lambda p, a, r: p.write_batch("a", [r], [1]),
    "bytes": lambda p, a, r: p.write_batch(b"12345678", [r], [1]),
    "generator": lambda p, a, r: p.write_batch((x for x in [a]), [r], [1]),
    "float in a list": lambda p, a, r: p.write_batch([a], [1.5], [1]),
    "negative in a list": lambda p, a, r: p.write_batch([a], [-1], [1]),
    "four-byte pages": lambda p, a, r: p.write_pages(numpy.zeros(1, dtype=numpy.int32), numpy.zeros(1), numpy.zeros((1, 5))),
    "fields of four": lambda p, a, r: p.write_pages(numpy.array([0]), numpy.array([0]), numpy.array([[1, 2, 3, 4]])),
    "fields across": lambda p, a, r: p.write_pages(numpy.array([0]), numpy.array([0]), numpy.ones((5, 5), dtype=numpy.int64).T),
    "list for pages": lambda p, a, r: p.write_pages([0], [0], [[a, 1, r, 1, 1]]),
    "name": lambda p, a, r: p.write(a, r, 1, nic=5),
    "float for an address": lambda p, a, r: p._engine.register_address(float(a), 8),
    "float of numpy for a length": lambda p, a, r: p._engine.register_address(a, numpy.float32(8)),
    "bool of numpy for an address": lambda p, a, r: p._engine.register_address(numpy.True_, 8),
    "array for an address": lambda p, a, r: p._engine.register_address(numpy.array([a]), 8),
    "float to allocate": lambda p, a, r: p._engine.allocate(4096.0),
    "float for a task": lambda p, a, r: p.submit_write([a], [r], [1]).report(0.0),
    "bool of numpy for a task": lambda p, a, r: p.submit_write([a], [r], [1]).report(numpy.False_),
    "float for a drained task": lambda p, a, r: p.submit_write([a], [r], [1]).drained(0.0),
    "array for a drained task": lambda p, a, r: p.submit_write([a], [r], [1]).drained(numpy.array([0])),
    "float for a limit": lambda p, a, r: p.submit_write([a], [r], [1]).errors(1.5),
    "float for a number of tasks": lambda p, a, r: p.write_pages(*_page(a, r), max_batch_size=1.5),
    "bool of numpy for a number of tasks": lambda p, a, r: p.write_pages(*_page(a, r), max_batch_size=numpy.True_),
    "text for a notification": lambda p, a, r: p.submit_write([a], [r], [1], notify="ab"),
    "half a notification": lambda p, a, r: p.submit_write([a], [r], [1], notify=("a",)),
    "a tensor at no address": lambda p, a, r: p._engine.register(_Tensor("a")),
    "a tensor at a negative address": lambda p, a, r: p.write(_Tensor(-8), r),
}


def _page(a, r):
    return numpy.array([0]), numpy.array([0]), numpy.array([[a, 0, r, 0, 8]])


class _Tensor:
    """Something that looks like a tensor and has an odd address."""

    def __init__(self, address):
        self.address = address

    def data_ptr(self):
        return self.address

    def is_contiguous(self):
        return True

    def numel(self):
        return 8

    def element_size(self):
        return 1


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_types_are_type_errors(case, engine, peer_of, there):
    region = engine.register(bytearray(4096))
    with pytest.raises(TypeError) as caught:
        WRONG_TYPES[case](peer_of, region.address, there.address)
    assert caught.type is TypeError


def test_ints_of_numpy_are_ints(engine, peer_of, there):
    data = rig.memory(4096, seed=3)
    at, length = numpy.uint64(data.ctypes.data), numpy.int32(4096)
    with engine.register_address(at, length) as region:
        assert (type(region.address), type(len(region)), region.address) == (int, int, data.ctypes.data)
        peer_of.write(at, numpy.uint64(there.address), length)
        assert bytes(there.view[:4096]) == data.tobytes()
        with peer_of.submit_write([at], [there.address], [8]) as batch:
            assert batch.drain() is te.Drained.YES
            assert batch.report(numpy.int8(0)).status == "completed" and batch.drained(numpy.uint64(0)) is te.Drained.YES
            assert batch.errors(numpy.int16(1)) == []
        peer_of.write_pages(*_page(region.address, there.address), max_batch_size=numpy.int64(1))
    with engine.allocate(numpy.int64(4096)) as region:
        assert len(region) == 4096


def test_a_region_without_an_object_has_no_view(engine):
    data = rig.memory(4096)
    with engine.register_address(data.ctypes.data, 4096) as region, pytest.raises(te.ArgumentError, match="register_address"):
        _ = region.view
    region = engine.allocate(4096)
    region.close()
    with pytest.raises(te.EngineClosedError, match="region"):
        _ = region.view


def test_an_unreachable_peer_is_a_network_error(engine):
    with pytest.raises(te.NetworkError) as caught:
        engine.open("127.0.0.1:1")
    assert caught.value.code == -102 and caught.value.retryable and caught.value.peer == "127.0.0.1:1"
    assert isinstance(caught.value, ConnectionError)
    assert te.last_error()[0] == -102
    for name in ("a\0b", "\ud800"):
        with pytest.raises(ValueError):
            engine.open(name)
    with pytest.raises(te.ArgumentError, match="nonsense"):
        te.Engine("x", metadata="nonsense://y")
    with pytest.raises(te.TransferEngineError):
        te.Engine("127.0.0.1", protocol="carrier pigeon")


def test_registered_memory_stays_until_it_is_closed(engine):
    data = bytearray(4096)
    with engine.register(data) as region:
        with pytest.raises(BufferError):
            data.extend(b"x")
        with pytest.raises(te.ArgumentError) as caught:
            engine.register(data)
        assert caught.value.code == -7
        assert len(region) == 4096 and region.view.nbytes == 4096
    region.close()
    data.extend(b"x")
    for memory in (b"read-only", memoryview(b"read-only")):
        with pytest.raises(te.ArgumentError, match="read-only"):
            engine.register(memory)
    engine.register(b"read-only, and only from here", remote_accessible=False).close()
    engine.register(b"read-only, for peers too", remote_accessible="read").close()
    for wrong in ("write", "both", ""):
        with pytest.raises(te.ArgumentError):
            engine.register(b"read-only" * 8, remote_accessible=wrong)
    for bad in (numpy.zeros(10)[::2], 5, "text", None):
        with pytest.raises((TypeError, ValueError, BufferError)):
            engine.register(bad)
    with pytest.raises(te.ArgumentError):
        engine.register_address(-1, 5)
    with pytest.raises(te.ArgumentError):
        engine.allocate(1 << 62)


def test_a_closed_engine_raises_and_lets_go_of_memory(engine, target, there):
    data = bytearray(4096)
    region, segment = engine.register(data), engine.open(target.name)
    batch = segment.submit_write([region.address], [there.address], [10])
    batch.wait()
    engine.close()
    engine.close()
    data.extend(b"x")
    for call in (lambda: segment.write(region.address, there.address, 1), batch.status, lambda: engine.open("x"), engine.notifications):
        with pytest.raises(te.EngineClosedError):
            call()
    assert engine.closed
    batch.close(), segment.close(), region.close()


def test_addresses_of_ctypes_memory(engine, peer_of, there):
    block = ctypes.create_string_buffer(rig.pattern(9, 100), 100)
    with engine.register_address(ctypes.addressof(block), 100) as region:
        peer_of.write(region, te.RemoteBuffer(there.address, 100, ""))
    assert bytes(there.view[:100]) == block.raw
