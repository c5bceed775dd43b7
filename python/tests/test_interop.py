"""Both packages beside upstream's released module, each in a process of its own; bytes are compared on both sides."""

import mooncake_te as te
import pytest
import rig

SIZES = [1, 4096, 70_001]
LARGE = 24 << 20
LENGTH = 32 << 20


def items(base, offset):
    """(offset here, address there, length): the same offsets on both sides, not aligned."""
    places, at = [], offset
    for size in SIZES:
        places.append((at, base + at, size))
        at += size + 13
    return places


@pytest.mark.parametrize("way", ["sync", "background", "single"])
@pytest.mark.parametrize("pair", ["ours upstream", "upstream ours", "ours ours"])
def test_writes_and_reads(pair, way):
    kinds = pair.split()
    with rig.Peer(kinds[0], LENGTH) as initiator, rig.Peer(kinds[1], LENGTH) as target:
        move = getattr(initiator, way)
        chosen = items(target.address, 7) + [(1 << 20, target.address + (1 << 20), LARGE)]
        for seed, (offset, _, length) in enumerate(chosen):
            initiator.fill(seed=seed, offset=offset, length=length)
        assert move(op="write", segment=target.segment, items=chosen)["result"] == 0
        for seed, (offset, _, length) in enumerate(chosen):
            assert target.equal(seed=seed, offset=offset, length=length)["equal"], (way, seed)
            target.fill(seed=seed + 100, offset=offset, length=length)
        assert move(op="read", segment=target.segment, items=chosen)["result"] == 0
        for seed, (offset, _, length) in enumerate(chosen):
            assert initiator.equal(seed=seed + 100, offset=offset, length=length)["equal"], (way, seed)


@pytest.mark.parametrize("pair", ["ours upstream", "upstream ours"])
def test_notifications_buffers_and_probes(pair):
    kinds = pair.split()
    with rig.Peer(kinds[0]) as initiator, rig.Peer(kinds[1]) as target:
        assert initiator.first_buffer(segment=target.segment)["address"] == target.address
        assert initiator.probe(segment=target.segment)["result"] == 0
        assert initiator.sync(op="write", segment=target.segment, items=[(0, target.address, 100)], notify=["n", "m"])["result"] == 0
        messages = []
        while not messages:  # it is sent in the background
            messages = target.notifies()["messages"]
        assert messages == [["n", "m"]]


def test_the_native_package_moves_bytes_to_and_from_upstream(engine):
    data = rig.memory(LENGTH, seed=1)
    engine.register(data)
    with rig.Peer("upstream", LENGTH) as target, engine.open(target.segment) as segment:
        assert [(b.address, b.length) for b in segment.buffers] == [(target.address, LENGTH)]
        segment.write(data, target.address)
        assert target.equal(seed=1, offset=0, length=LENGTH)["equal"]
        target.fill(seed=2, offset=0, length=LENGTH)
        segment.read(data, target.address)
        assert data.tobytes() == rig.pattern(2, LENGTH)
        assert engine.is_alive(target.segment)


def test_upstream_moves_bytes_to_and_from_the_native_package(engine):
    region = engine.allocate(LENGTH)
    with rig.Peer("upstream", LENGTH) as initiator:
        initiator.fill(seed=3, offset=0, length=LENGTH)
        assert initiator.single(op="write", segment=engine.name, items=[(0, region.address, LENGTH)])["result"] == 0
        assert bytes(region.view) == rig.pattern(3, LENGTH)
        region.view[:] = rig.pattern(4, LENGTH)
        assert initiator.single(op="read", segment=engine.name, items=[(0, region.address, LENGTH)])["result"] == 0
        assert initiator.equal(seed=4, offset=0, length=LENGTH)["equal"]


def test_a_peer_that_is_killed_fails_transfers_and_the_next_one_is_reached(engine):
    data = rig.memory(LENGTH)
    region = engine.register(data)
    for kind in ("ours", "upstream"):
        with rig.Peer(kind, LENGTH) as target, engine.open(target.segment) as segment:
            segment.write(region.address, target.address, 8)
            target.stop()
            with segment.submit_write([region.address], [target.address], [LENGTH]) as batch:
                assert not batch.done
                target.kill()
                with pytest.raises(te.TransferEngineError) as caught:
                    batch.wait(60)
                assert caught.value.error_class in (te.ErrorClass.NETWORK, te.ErrorClass.TIMEOUT) and caught.value.task == 0
                assert batch.task_statuses()[0][0] == "failed" and batch.errors()[0][0] == 0
                assert batch.report().code == caught.value.code
                assert batch.drained() in te.Drained
            with pytest.raises(te.TransferEngineError):
                segment.write(region.address, target.address, 8)
    with rig.Peer("ours", LENGTH) as target, engine.open(target.segment) as segment:
        segment.write(region.address, target.address, 8)


def test_the_same_through_mooncake_engine(compatible):
    engine, _ = compatible
    data = rig.memory(LENGTH)
    address = data.ctypes.data
    assert engine.register_memory(address, LENGTH) == 0
    with rig.Peer("ours", LENGTH) as target:
        assert engine.transfer_sync_write(target.segment, address, target.address, 8) == 0
        target.stop()
        batch = engine.batch_transfer_async_write(target.segment, [address], [target.address], [LENGTH])
        single = engine.transfer_submit_write(target.segment, address, target.address, LENGTH)
        ticket = engine.submit_scatter_write(target.segment, [address], [LENGTH], [target.address], [LENGTH], [[0]], [[0]], [[LENGTH]])
        assert batch and single and engine.transfer_check_status(single) == 0
        assert (int(ticket.status), ticket.drained, int(ticket.drain(1))) == (-2, False, -2)
        target.kill()
        assert engine.get_batch_transfer_status([batch]) == -1
        while (status := engine.transfer_check_status(single)) == 0:
            pass
        assert status == -1
        # Nobody can say any more what has arrived there, unless nothing was under way.
        while engine.transfer_sync_write(target.segment, address, target.address, 8) == 0:
            pass
        assert int(ticket.status) in (-1, -2) and ticket.drained == (int(ticket.status) == -1)
        assert engine.send_probe(target.segment) < 0


def test_a_canceled_write_is_drained_once_its_peer_confirms(engine):
    data = rig.memory(LENGTH)
    region = engine.register(data)
    with rig.Peer("ours", LENGTH) as target, engine.open(target.segment) as segment:
        segment.write(region.address, target.address, 8)
        target.stop()
        with segment.submit_write([region.address], [target.address], [LENGTH]) as batch:
            batch.cancel()
            with pytest.raises(te.CanceledError):
                batch.wait(30)
            assert batch.drain(timeout=0) is te.Drained.NO
            target.go_on()
            assert batch.drain(timeout=60) is te.Drained.YES
