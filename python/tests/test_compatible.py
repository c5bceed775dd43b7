"""mooncake.engine: upstream's results call by call. What is expected here was read off upstream's module (0.3.13.post1, and
0.3.14 for arrays, pages and scatter), except where upstream crashes."""

import copy
import pickle

import numpy
import pytest
import rig
from mooncake import engine as module
from mooncake.engine import ScatterTransferCompletionStatus as Status
from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode
from mooncake_te._lib import lib

SIZE = 1 << 20
HALF = SIZE // 2


@pytest.fixture
def place(compatible):
    """engine, its own session id, address of registered memory, the memory. Transfers go to the engine itself."""
    engine, session = compatible
    data = rig.memory(SIZE, seed=1)
    assert engine.register_memory(data.ctypes.data, SIZE) == 0
    return engine, session, data.ctypes.data, data


def test_all_forms_move_the_bytes(place, peer):
    engine, _, base, data = place
    count = 100
    columns = [base + 100 * i for i in range(count)], [peer.address + 100 * i for i in range(count)], [100] * count
    arrays = [numpy.array(column, dtype=numpy.uint64) for column in columns]
    pages = numpy.arange(count), numpy.arange(count), numpy.array([[base, 100, peer.address, 100, 100]])
    name = peer.segment
    writes = {
        "lists": lambda: engine.batch_transfer_sync_write(name, *columns),
        "opcode": lambda: engine.batch_transfer_sync(name, *columns, TransferOpcode.Write),
        "arrays": lambda: engine.batch_transfer_sync_write_arrays(name, *arrays),
        "pages": lambda: engine.batch_transfer_sync_write_pages(name, *pages, max_batch_size=7),
        "single": lambda: engine.transfer_sync_write(name, base, peer.address, 100 * count),
        "single with opcode": lambda: engine.transfer_sync(name, base, peer.address, 100 * count, TransferOpcode.Write),
        "async": lambda: engine.get_batch_transfer_status([engine.batch_transfer_async_write(name, *columns)]),
        "async arrays": lambda: engine.get_batch_transfer_status([engine.batch_transfer_async_write_arrays(name, *arrays)]),
        "async opcode": lambda: engine.get_batch_transfer_status([engine.batch_transfer_async(name, *columns, TransferOpcode.Write)]),
    }
    for seed, (form, write) in enumerate(writes.items(), 10):
        data[: 100 * count] = rig.memory(100 * count, seed)
        assert write() == 0, form
        assert peer.equal(seed=seed, offset=0, length=100 * count)["equal"], form
    reads = {
        "arrays": lambda: engine.batch_transfer_sync_read_arrays(name, *arrays),
        "pages": lambda: engine.batch_transfer_sync_read_pages(name, *pages),
        "single": lambda: engine.transfer_sync_read(name, base, peer.address, 100 * count),
        "single with opcode": lambda: engine.transfer_sync(name, base, peer.address, 100 * count, TransferOpcode.Read),
        "async": lambda: engine.get_batch_transfer_status([engine.batch_transfer_async_read(name, *columns)]),
        "async arrays": lambda: engine.get_batch_transfer_status([engine.batch_transfer_async_read_arrays(name, *arrays)]),
    }
    for seed, (form, read) in enumerate(reads.items(), 30):
        peer.fill(seed=seed, offset=0, length=100 * count)
        assert read() == 0, form
        assert data[: 100 * count].tobytes() == rig.pattern(seed, 100 * count), form


def test_a_batch_of_many_is_waited_for_like_a_small_one(place):
    engine, session, base, data = place
    count = 5000
    columns = [base + 16 * i for i in range(count)], [base + HALF + 16 * i for i in range(count)], [16] * count
    assert engine.batch_transfer_sync_write(session, *columns) == 0
    assert (data[: 16 * count] == data[HALF : HALF + 16 * count]).all()


def test_batch_ids_and_their_status(place):
    engine, session, base, _ = place
    ids = [engine.batch_transfer_async_write(session, [base], [base + HALF], [64]) for _ in range(3)]
    assert all(ids) and len(set(ids)) == 3
    assert engine.get_batch_transfer_status(ids) == 0
    assert engine.get_batch_transfer_status(ids) == -1  # freed
    batch = engine.transfer_submit_write(session, base, base + HALF, 64)
    assert batch != 0
    while (status := engine.transfer_check_status(batch)) == 0:
        pass
    assert status == 1 and engine.transfer_check_status(batch) == -1
    assert engine.get_batch_transfer_status([]) == 0
    empty = engine.batch_transfer_async_write(session, [], [], [])
    assert empty != 0 and engine.get_batch_transfer_status([empty]) == 0
    for unknown in (0, 1, 2**64 - 1):
        assert engine.get_batch_transfer_status([unknown]) == -1
        assert engine.transfer_check_status(unknown) == -1
    good = engine.batch_transfer_async_write(session, [base], [base + HALF], [64])
    assert engine.get_batch_transfer_status([good, 12345]) == -1
    assert engine.transfer_check_status(good) == -1  # freed with the unknown one


RESULTS = {
    "unknown peer": (lambda e, s, a: e.transfer_sync_write("127.0.0.1:1", a, a, 10), -1),
    "unknown peer, batch": (lambda e, s, a: e.batch_transfer_sync_write("127.0.0.1:1", [a], [a], [10]), -1),
    "unknown peer, background": (lambda e, s, a: e.batch_transfer_async_write("127.0.0.1:1", [a], [a], [10]), 0),
    "unknown peer, submit": (lambda e, s, a: e.transfer_submit_write("127.0.0.1:1", a, a, 10), 0),
    "not registered here": (lambda e, s, a: e.transfer_sync_write(s, 4096, a, 10), -1),
    "not registered there": (lambda e, s, a: e.transfer_sync_write(s, a, 4096, 10), -1),
    "NULL": (lambda e, s, a: e.transfer_sync_write(s, 0, a, 10), -1),
    "different lengths": (lambda e, s, a: e.batch_transfer_sync_write(s, [a, a], [a], [10]), -1),
    "different lengths, background": (lambda e, s, a: e.batch_transfer_async_write(s, [a, a], [a], [10]), 0),
    "nothing": (lambda e, s, a: e.batch_transfer_sync_write(s, [], [], []), 0),
    "tuples": (lambda e, s, a: e.batch_transfer_sync_write(s, (a,), (a + HALF,), (10,)), 0),
    "numbers of numpy": (lambda e, s, a: e.transfer_sync_write(s, numpy.uint64(a), a + HALF, numpy.int32(10)), 0),
    "arrays of numpy as lists": (lambda e, s, a: e.batch_transfer_sync_write(s, *(numpy.array([v]) for v in (a, a + HALF, 10))), 0),
    "bytes for a name": (lambda e, s, a: e.transfer_sync_write(s.encode(), a, a + HALF, 10), 0),
    "a hint that means nothing": (lambda e, s, a: e.transfer_sync_write(s, a, a + HALF, 10, "nonsense"), 0),
    "a NIC on TCP": (lambda e, s, a: e.transfer_sync_write(s, a, a + HALF, 10, nic_hint="mlx5_0"), 0),
    "an opcode that is none": (lambda e, s, a: e.transfer_sync(s, a, a + HALF, 10, TransferOpcode(7)), 0),
    "registered twice": (lambda e, s, a: e.register_memory(a, SIZE), -7),
    "registered in part": (lambda e, s, a: e.register_memory(a + 4096, 10), -7),
    "no bytes": (lambda e, s, a: e.register_memory(a + 2 * SIZE, 0), -1),
    "never registered": (lambda e, s, a: e.unregister_memory(a + 4096), -3),
    "never registered, batch": (lambda e, s, a: e.batch_unregister_memory([a + 5]), -3),
    "no registrations": (lambda e, s, a: (e.batch_register_memory([], []), e.batch_unregister_memory([])), (0, 0)),
    "registrations of different lengths": (lambda e, s, a: e.batch_register_memory([a], [1, 2]), -1),
    "first buffer": (lambda e, s, a: e.get_first_buffer_address(s) == a, True),
    "first buffer of nobody": (lambda e, s, a: e.get_first_buffer_address("127.0.0.1:1"), 0),
    "probe of itself": (lambda e, s, a: e.send_probe(s), 0),
    "probe of an unknown host": (lambda e, s, a: e.send_probe("no.such.host.invalid:9"), -101),
    "probe of nobody": (lambda e, s, a: e.send_probe("127.0.0.1:1") < 0, True),
    "EFA": (lambda e, s, a: e.warmup_efa_segment("x"), 0),
    "topology": (lambda e, s, a: "cpu:0" in e.get_local_topology() and "cpu:0" in e.get_local_topology("mlx5_0"), True),
    "another protocol": (lambda e, s, a: TransferEngine().initialize_ext("127.0.0.1", "P2PHANDSHAKE", "xgmi", "", ""), -1),
    "a store of no kind": (lambda e, s, a: TransferEngine().initialize("127.0.0.1", "nonsense://x", "tcp", ""), -1),
    "a store that is not there": (lambda e, s, a: TransferEngine().initialize("127.0.0.1", "http://127.0.0.1:1/m", "tcp", ""), -1),
    "scheme apart": (lambda e, s, a: TransferEngine().initialize_ext("127.0.0.1", "P2PHANDSHAKE", "tcp", "", "http"), 0),
    "None for devices": (lambda e, s, a: TransferEngine().initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", None), 0),
}


@pytest.mark.parametrize("case", RESULTS)
def test_results_are_upstreams_integers(case, place):
    call, expected = RESULTS[case]
    assert call(*place[:3]) == expected


TYPE_ERRORS = {
    "float": lambda e, s, a: e.transfer_sync_write(s, a, a, 10.0),
    "negative": lambda e, s, a: e.transfer_sync_write(s, a, a, -1),
    "huge": lambda e, s, a: e.register_memory(1 << 64, 5),
    "text for a number": lambda e, s, a: e.register_memory("a", 5),
    "number for a name": lambda e, s, a: e.transfer_sync_write(5, a, a, 10),
    "name that is no text": lambda e, s, a: e.transfer_sync_write("\ud800", a, a, 10),
    "generator": lambda e, s, a: e.batch_transfer_sync_write(s, (x for x in [a]), [a], [1]),
    "set": lambda e, s, a: e.batch_transfer_sync_write(s, {a}, [a], [1]),
    "dict": lambda e, s, a: e.batch_transfer_sync_write(s, {a: 1}, [a], [1]),
    "bytes": lambda e, s, a: e.batch_transfer_sync_write(s, b"ab", [a], [1]),
    "None": lambda e, s, a: e.batch_transfer_sync_write(s, None, [a], [1]),
    "floats of numpy": lambda e, s, a: e.batch_transfer_sync_write(s, numpy.array([1.0]), [a], [1]),
    "float in a list": lambda e, s, a: e.batch_transfer_sync_write(s, [1.5], [a], [1]),
    "negative in a list": lambda e, s, a: e.batch_transfer_sync_write(s, [-1], [a], [1]),
    "int for an opcode": lambda e, s, a: e.transfer_sync(s, a, a, 1, 1),
    "text for a notification": lambda e, s, a: e.transfer_sync(s, a, a, 1, TransferOpcode.Write, "x"),
    "list for an array": lambda e, s, a: e.batch_transfer_sync_write_arrays(s, [a], [a], [1]),
    "int32 array": lambda e, s, a: e.batch_transfer_sync_write_arrays(s, *[numpy.zeros(1, dtype=numpy.int32)] * 3),
    "bytes for an array": lambda e, s, a: e.batch_transfer_sync_write_arrays(s, b"12345678", b"12345678", b"12345678"),
    "every other item": lambda e, s, a: e.batch_transfer_sync_write_arrays(s, *[numpy.zeros(4, dtype=numpy.uint64)[::2]] * 3),
    "two dimensions": lambda e, s, a: e.batch_transfer_sync_write_arrays(s, *[numpy.zeros((1, 2), dtype=numpy.uint64)] * 3),
    "fields of one dimension": lambda e, s, a: e.batch_transfer_sync_write_pages(s, *[numpy.zeros(5, dtype=numpy.int64)] * 3),
    "a batch size that is negative": lambda e, s, a: e.batch_transfer_sync_write_pages(s, *_grid(a), -2),
    "keyword where there is none": lambda e, s, a: e.unregister_memory(buffer_addr=a),
    "missing": lambda e, s, a: e.transfer_sync_write(s),
    "memoryview": lambda e, s, a: e.write_bytes_to_buffer(a, memoryview(b"hello"), 5),
    "negative time": lambda e, s, a: _scatter(e, s, a).drain(-1),
    "pickled": lambda e, s, a: pickle.dumps(e),
    "no constructor": lambda e, s, a: module.InnerTransferEngine(),
    "no constructor either": lambda e, s, a: module.ScatterTransferTicket(),
}


def _grid(a, page=0, length=64, stride=64):
    return numpy.array([page]), numpy.array([0]), numpy.array([[a, stride, a + HALF, 64, length]])


def _scatter(engine, session, a, **changes):
    given = {
        "local_base_addresses": [a],
        "local_capacities": [65536],
        "remote_base_addresses": [a + HALF],
        "remote_capacities": [65536],
        "local_offsets": [[0, 100]],
        "remote_offsets": [[50, 100]],
        "lengths": [[10, 20]],
    }
    return engine.scatter_transfer_sync_write_with_ticket(session, **{**given, **changes})


@pytest.mark.parametrize("case", TYPE_ERRORS)
def test_wrong_types_are_type_errors_as_with_pybind(case, place):
    with pytest.raises(TypeError):
        TYPE_ERRORS[case](*place[:3])


@pytest.mark.parametrize("change", [{"page": -1}, {"length": 0}, {"length": -5}, {"stride": -64}])
def test_pages_that_make_no_sense_are_value_errors(change, place):
    engine, session, base, _ = place
    assert engine.batch_transfer_sync_write_pages(session, *_grid(base)) == 0
    with pytest.raises(ValueError):
        engine.batch_transfer_sync_write_pages(session, *_grid(base, **change))


def test_arrays_of_different_lengths_are_value_errors(place):
    engine, session, base, _ = place
    two, one = numpy.array([base, base]), numpy.array([base])
    with pytest.raises(ValueError):
        engine.batch_transfer_sync_write_arrays(session, two, one, one)
    with pytest.raises(ValueError):
        engine.batch_transfer_async_read_arrays(session, two, one, one)
    assert engine.batch_transfer_sync_write_pages(session, *_grid(base, page=1 << 40, stride=1 << 40)) == -1


SCATTERED = {
    "good": ({}, Status.COMPLETED),
    "nothing": (dict.fromkeys(("local_offsets", "remote_offsets", "lengths"), [[]]), Status.COMPLETED),
    "no bytes": ({"lengths": [[0, 0]]}, Status.COMPLETED),
    "arrays": ({"lengths": numpy.array([[10, 20]])}, Status.COMPLETED),
    "beyond the capacity": ({"lengths": [[10, 65536]]}, Status.FAILED_DRAINED),
    "a capacity too few": ({"local_capacities": []}, Status.FAILED_DRAINED),
    "a length too few": ({"lengths": [[10]]}, Status.FAILED_DRAINED),
    "not registered here": ({"local_base_addresses": [4096]}, Status.FAILED_DRAINED),
    "not registered there": ({"remote_base_addresses": [4096]}, Status.FAILED_DRAINED),
    "beyond the address space": ({"local_base_addresses": [2**64 - 1]}, Status.FAILED_DRAINED),
}


@pytest.mark.parametrize("case", SCATTERED)
def test_a_scatter_ticket_says_how_it_ended(case, place):
    engine, session, base, data = place
    change, expected = SCATTERED[case]
    ticket = _scatter(engine, session, base, **change)
    assert (ticket.status, ticket.drained, ticket.drain(0)) == (expected, True, expected)
    if case in ("good", "arrays"):
        assert (data[HALF + 50 : HALF + 60] == data[:10]).all() and (data[HALF + 100 : HALF + 120] == data[100:120]).all()


def test_scatter_in_the_background(place):
    engine, session, base, data = place
    arguments = [base], [4096], [base + HALF], [4096], [[0]], [[0]], [[4096]]
    ticket = engine.submit_scatter_read(session, *arguments)
    assert ticket.drain(30_000) == Status.COMPLETED and (data[:4096] == data[HALF : HALF + 4096]).all()
    assert engine.submit_scatter_write(session, *arguments).drain(30_000) == Status.COMPLETED
    engine.submit_scatter_write(session, *arguments)  # dropped at once
    assert engine.submit_scatter_write("127.0.0.1:1", *arguments).status == Status.FAILED_DRAINED
    with pytest.raises(TypeError):
        engine.submit_scatter_write(session, [-1], *arguments[1:])


def test_enumerations_are_pybinds():
    read, write = TransferOpcode.Read, TransferOpcode.Write
    assert (module.Read, module.Write) == (read, write) and TransferEngine.TransferOpcode is TransferOpcode
    assert (repr(write), str(write), write.name, write.value, int(write), hash(write)) == ("<TransferOpcode.Write: 1>", "TransferOpcode.Write", "Write", 1, 1, 1)
    assert write != 1 and write == TransferOpcode(1) and write is not None and ["a", "b"][write] == "b"
    assert read < write and read <= read and write > read and write >= write
    with pytest.raises(TypeError):
        _ = read < 1
    with pytest.raises(TypeError):
        _ = read | write
    assert repr(TransferOpcode(7)) == "<TransferOpcode.???: 7>" and TransferOpcode.__members__ == {"Read": read, "Write": write}
    assert pickle.loads(pickle.dumps(write)) == write and copy.copy(write) == write
    assert [int(s) for s in (Status.COMPLETED, Status.FAILED_DRAINED, Status.COMPLETION_UNKNOWN)] == [0, -1, -2]
    with pytest.raises(TypeError):
        _ = Status.COMPLETED < Status.FAILED_DRAINED


def test_notifications(place):
    engine, session, base, _ = place
    note = TransferNotify("n", b"m")
    assert (note.name, note.msg, TransferNotify().name) == ("n", "m", "")
    note.msg = "ünï"
    for wrong in (lambda: TransferNotify("x"), lambda: TransferNotify("x", 5), lambda: setattr(note, "name", 5)):
        with pytest.raises(TypeError):
            wrong()
    assert engine.transfer_sync(session, base, base + HALF, 10, TransferOpcode.Write, note) == 0
    assert engine.batch_transfer_sync(session, [base] * 2, [base + HALF] * 2, [5, 6], TransferOpcode.Write, TransferNotify("2", "")) == 0
    found = []
    while len(found) < 2:
        found += [(n.name, n.msg) for n in engine.get_notifies()]
    assert found == [("n", "ünï"), ("2", "")]


@pytest.mark.parametrize("note", [("a\0b", "c"), ("a", "b\0"), (b"\xff", "c"), ("a", b"\xe2\x82")])
def test_a_notification_that_cannot_be_sent_is_refused_before_anything_is_moved(note, place, monkeypatch):
    engine, session, base, data = place
    made, before = [], data.tobytes()
    for call in ("allocateBatchID", "mte_transfer_arrays"):
        monkeypatch.setattr(lib, call, lambda *arguments: made.append(arguments))
    with pytest.raises(ValueError):
        engine.transfer_sync(session, base, base + HALF, 10, TransferOpcode.Write, TransferNotify(*note))
    with pytest.raises(ValueError):
        engine.batch_transfer_sync(session, [base], [base + HALF], [10], TransferOpcode.Write, TransferNotify(*note))
    assert not made and data.tobytes() == before


def test_a_batch_whose_submit_raises_is_freed(place, monkeypatch):
    engine, session, base, _ = place
    live, allocate, free = set(), lib.allocateBatchID, lib.freeBatchID

    def allocated(*arguments):
        batch = allocate(*arguments)
        live.add(batch)
        return batch

    def freed(handle, batch):
        result = free(handle, batch)
        if result == 0:
            live.remove(batch)
        return result

    def interrupted(*_):
        assert live
        raise KeyboardInterrupt

    for name, replacement in (("allocateBatchID", allocated), ("freeBatchID", freed), ("mte_submit_arrays", interrupted)):
        monkeypatch.setattr(lib, name, replacement)
    with pytest.raises(KeyboardInterrupt):
        engine.batch_transfer_async_write(session, [base], [base + HALF], [10])
    assert not live and not engine.get_engine()._batches


def test_of_two_that_ask_for_one_batch_the_later_one_is_told_minus_one(place, monkeypatch):
    engine, session, base, _ = place
    one, two = (engine.batch_transfer_async_write(session, [base], [base + HALF], [10]) for _ in range(2))
    real, other = lib.mte_wait_batch, []

    def wait(handle, batch, limit):
        if batch == one:  # the other thread is through with the second one in the meantime
            other.append(engine.get_batch_transfer_status([two]))
        return real(handle, batch, limit)

    monkeypatch.setattr(lib, "mte_wait_batch", wait)
    assert engine.get_batch_transfer_status([one, two]) == -1 and other == [0]
    assert engine.transfer_check_status(one) == engine.transfer_check_status(two) == -1


def test_what_is_not_there_says_so(place):
    engine, session, base, _ = place
    supports = [name for name in dir(module) if name.startswith("SUPPORT_")]
    assert len(supports) == 7 and not any(getattr(module, name) for name in supports)
    calls = [
        lambda: engine.transfer_write_on_cuda(session, base, base, 5),
        lambda: engine.batch_transfer_read_on_cuda(session, [base], [base], [5]),
        lambda: module.SharedSegment.create("x", 5, 1, 0),
        module.RpcInterface,
        module.CoroRPCInterface,
        module.create_rpc_client,
        module.create_rpc_server,
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match="mooncake-te|host memory"):
            call()
    assert not module.SharedSegment.supported()


def test_nothing_crashes_before_initialize():
    engine = TransferEngine()
    none = numpy.zeros(0, dtype=numpy.uint64)
    expected = {
        engine.get_rpc_port: -1,
        engine.get_notifies: [],
        engine.get_engine: None,
        engine.get_engine_ptr: 0,
        lambda: engine.send_probe("x"): -1,
        lambda: engine.transfer_sync_write("x", 1, 2, 3): -1,
        lambda: engine.batch_transfer_sync_write_arrays("x", none, none, none): -1,
        lambda: engine.transfer_submit_write("x", 1, 2, 3): 0,
        lambda: engine.get_batch_transfer_status([1]): -1,
        lambda: engine.transfer_check_status(1): -1,
        lambda: engine.register_memory(1, 2): -1,
        lambda: engine.unregister_memory(1): -1,
        lambda: engine.batch_register_memory([1], [1]): -1,
        lambda: engine.allocate_managed_buffer(5): 0,
        lambda: engine.free_managed_buffer(5, 5): -1,
        lambda: engine.get_first_buffer_address("x"): 0,
        lambda: engine.submit_scatter_write("x", [], [], [], [], [], [], []).status: Status.FAILED_DRAINED,
    }
    for call, result in expected.items():
        assert call() == result
    with pytest.raises(AttributeError):
        engine.something = 5


def test_initialize_again_replaces_the_engine(place):
    engine, session, base, _ = place
    inner = engine.get_engine()
    assert isinstance(inner, module.InnerTransferEngine) and engine.get_engine_ptr() != 0
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    assert f"127.0.0.1:{engine.get_rpc_port()}" != session
    assert engine.transfer_sync_write(f"127.0.0.1:{engine.get_rpc_port()}", base, base + HALF, 10) == -1  # not registered with it
    assert engine.register_memory(base, SIZE) == 0
