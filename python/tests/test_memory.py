"""Managed buffers, and bytes at addresses that may be wrong."""

import ctypes
import mmap

import pytest
import rig
from mooncake_te import _memory
from mooncake_te._pool import SLAB, SMALLEST, Pool


class Registrations:
    def __init__(self):
        self.live = {}

    def register(self, address, length):
        self.live[address] = length
        return True


def pool(registrations):
    return Pool(registrations.register, registrations.live.pop)


def test_pieces_lie_in_slabs_do_not_overlap_and_are_used_again():
    registrations = Registrations()
    buffers = pool(registrations)
    sizes = [0, 1, SMALLEST, SMALLEST + 1, 100_000, 5 << 20, SLAB // 2, SLAB]
    held = [(buffers.allocate(size), size) for size in sizes * 3]
    spans = sorted((address, address + size) for address, size in held)
    assert all(address for address, _ in held)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))
    assert all(any(base <= a and a + size <= base + length for base, length in registrations.live.items()) for a, size in held)
    slabs = len(registrations.live)
    for address, _ in held:
        assert buffers.free(address)
        assert not buffers.free(address)
    again = [buffers.allocate(size) for size in sizes * 3]
    assert all(again) and len(registrations.live) == slabs
    assert not buffers.free(12345)


def test_what_is_larger_than_a_slab_is_given_back_at_once():
    registrations = Registrations()
    buffers = pool(registrations)
    address = buffers.allocate(SLAB + 1)
    assert registrations.live == {address: SLAB + 1}
    assert buffers.free(address) and not registrations.live and not buffers.mappings
    assert buffers.allocate(1 << 60) == 0
    assert Pool(lambda *_: False, lambda _: None).allocate(5) == 0


def test_managed_buffers_of_an_engine_can_be_transferred(compatible):
    engine, session = compatible
    assert engine.get_first_buffer_address(session) == 0
    a, b = engine.allocate_managed_buffer(100), engine.allocate_managed_buffer(100)
    slab = engine.get_first_buffer_address(session)
    assert all(slab <= address <= slab + SLAB - 100 for address in (a, b)) and abs(a - b) >= SMALLEST
    data = rig.pattern(3, 100)
    assert engine.write_bytes_to_buffer(a, data, 100) == 0
    assert engine.transfer_sync_write(session, a, b, 100) == 0
    assert engine.read_bytes_from_buffer(b, 100) == data
    assert engine.free_managed_buffer(a, 100) == 0 and engine.free_managed_buffer(a, 100) == -1
    assert engine.allocate_managed_buffer(1 << 60) == 0


def test_bytes_in_and_out(compatible):
    engine, _ = compatible
    block = mmap.mmap(-1, 1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for data, length in ((b"hello", 5), ("héllo", 6), ("abc", 4), (bytearray(b"xy"), 2), (None, 0), (b"longer than that", 6)):
        assert engine.write_bytes_to_buffer(address, data, length) == 0
        expected = (data.encode() if isinstance(data, str) else bytes(data or b"")) + b"\0"
        assert engine.read_bytes_from_buffer(address, length) == expected[:length]
    assert engine.write_bytes_to_buffer(address, b"abc", 1000) == -1  # upstream reads what lies behind it
    big = rig.pattern(4, 1 << 20)
    assert engine.write_bytes_to_buffer(address, big, len(big)) == 0 and engine.read_bytes_from_buffer(address, len(big)) == big


@pytest.mark.parametrize("refused", [False, True], ids=["process_vm_readv", "pipe"])
def test_a_bad_address_is_an_error_and_nothing_else(compatible, refused, monkeypatch):
    if refused:  # as in a sandbox
        monkeypatch.setattr(_memory, "_copy", lambda *_: False)
    engine, _ = compatible
    block = mmap.mmap(-1, 3 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    assert engine.write_bytes_to_buffer(address, bytes(200_000)[: 3 * mmap.PAGESIZE], 3 * mmap.PAGESIZE) == 0
    assert ctypes.CDLL(None).munmap(ctypes.c_void_p(address + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE)) == 0
    hole = address + mmap.PAGESIZE
    for bad, length in ((0, 1), (8, 8), (hole, 1), (hole - 4, 8), (hole - 4, 3 << 40), (2**64 - 1, 1), (2**64 - 1, 5), (1 << 47, 100), (address, 1 << 62)):
        with pytest.raises(OSError):
            engine.read_bytes_from_buffer(bad, length)
    for bad in (0, hole, 1 << 47, 2**64 - 1):
        assert engine.write_bytes_to_buffer(bad, b"ab", 2) == -1
    text = ctypes.cast(ctypes.CDLL(None).printf, ctypes.c_void_p).value  # code, which may be read but not written
    assert len(engine.read_bytes_from_buffer(text, 16)) == 16
    assert engine.write_bytes_to_buffer(text, b"ab", 2) == -1
    assert engine.read_bytes_from_buffer(0, 0) == b""
    # The hole is mapped again, so that the mapping's own end is what it was.
    ctypes.CDLL(None).mmap(ctypes.c_void_p(hole), ctypes.c_size_t(mmap.PAGESIZE), 3, 0x32, -1, ctypes.c_long(0))
