"""Time-outs of mooncake_te that no clock and no C integer holds."""

import concurrent.futures
import math
import sys
from decimal import Decimal

import mooncake_te as te
import numpy
import pytest
import rig
from mooncake_te._lib import lib

SIZE = 4096
LARGE = 64 << 20  # more than sockets hold
ENDLESS = [None, math.inf, numpy.float64("inf"), 10**400, 1e300, sys.maxsize, 2**70, numpy.int64(2**62), Decimal("1e30")]
OVER = [-math.inf, -(10**400), -1, -1e300, 0, False]
CALLS = {
    "write": lambda place, timeout: place.segment.write(place.here, place.there, SIZE, timeout=timeout),
    "read_batch": lambda place, timeout: place.segment.read_batch([place.here], [place.there], [SIZE], timeout=timeout),
    "write_pages": lambda place, timeout: place.segment.write_pages(*place.pages, timeout=timeout),
    "wait": lambda place, timeout: place.batch.wait(timeout),
    "ended": lambda place, timeout: place.batch.ended(timeout),
    "drain": lambda place, timeout: place.batch.drain(timeout),
}
IN_C = ["mte_transfer_arrays", "mte_transfer_pages", "mte_wait_batch", "mte_submit_arrays", "allocateBatchID"]
AT = {"mte_transfer_arrays": 8, "mte_transfer_pages": 10, "mte_wait_batch": 2}  # where the limit is


@pytest.fixture
def place(engine, target):
    class Place:
        segment = engine.open(target.name)
        here, there = engine.allocate(SIZE).address, target.allocate(SIZE).address
        pages = numpy.array([0]), numpy.array([0]), numpy.array([[here, 0, there, 0, SIZE]])
        batch = segment.submit_write([here], [there], [SIZE])

    return Place


@pytest.fixture
def asked(monkeypatch):
    """The arguments of the calls of C that move something or wait."""
    asked = []
    for name in IN_C:
        def call(*arguments, name=name, real=getattr(lib, name)):
            asked.append((name, arguments))
            return real(*arguments)

        monkeypatch.setattr(lib, name, call)
    return asked


def elsewhere(call):
    """In the main thread Python waits in slices, in others C waits."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return pool.submit(call).result(60)


@pytest.mark.parametrize("thread", ["main", "other"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("timeout", ENDLESS, ids=lambda value: f"{value!r:.12}")
def test_a_time_out_that_never_comes_is_none_or_the_longest_that_c_has(timeout, call, thread, place, asked):
    run = elsewhere if thread == "other" else lambda call: call()
    assert run(lambda: CALLS[call](place, timeout)) in (None, True, te.Drained.YES)
    limits = [arguments[AT[name]] for name, arguments in asked if name in AT]
    assert limits and all(type(limit) is int and -1 <= limit < 2**63 for limit in limits)
    if timeout in (None, math.inf, 10**400) and (thread == "other" or call == "write_pages"):
        assert set(limits) == {-1}
    elif thread == "other":
        assert all(limit > 10**12 for limit in limits)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("timeout", [math.nan, numpy.float32("nan"), "1", b"1", 1j, [1], object()], ids=lambda value: f"{value!r:.12}")
def test_what_is_no_time_is_refused_before_anything_is_submitted(timeout, call, place, asked):
    kind = te.ArgumentError if isinstance(timeout, (float, numpy.float32)) else TypeError
    with pytest.raises(kind, match="timeout"):
        CALLS[call](place, timeout)
    with pytest.raises(kind, match="timeout"):
        elsewhere(lambda: CALLS[call](place, timeout))
    assert not asked


@pytest.mark.parametrize("timeout", OVER, ids=lambda value: f"{value!r:.12}")
def test_a_time_out_that_is_over_is_zero(timeout, engine):
    with rig.Peer("ours", LARGE) as peer:
        region, segment = engine.allocate(LARGE), engine.open(peer.segment)
        segment.write(region.address, peer.address, 8)
        peer.stop()
        batch = segment.submit_write([region.address], [peer.address], [LARGE])
        for run in (elsewhere, lambda call: call()):
            assert run(lambda: batch.ended(timeout)) is False
            assert run(lambda: batch.drain(timeout)) is te.Drained.NO
            with pytest.raises(te.DeadlineError):
                run(lambda: batch.wait(timeout))
            with pytest.raises(te.DeadlineError):
                run(lambda: segment.write(region.address, peer.address, LARGE, timeout=timeout))
        peer.go_on()
