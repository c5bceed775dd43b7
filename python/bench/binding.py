"""What Python adds to a call: mooncake_te and mooncake.engine of this project, and upstream's module, in one run.

    binding.py                    this interpreter's packages and, by UPSTREAM_PYTHON (default: target/venv/bin/python), upstream's
    binding.py --one ours|upstream   one side, as JSON (what the above runs, alternating)

Two kinds of figures. *Overhead*: calls that do all of the work in Python's layer and end before anything is moved (lists
of different lengths are refused once they are converted). *Whole*: transfers of 8 bytes within one engine and to a second
process over TCP.
"""

import argparse
import ctypes
import json
import logging
import mmap
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
COUNT = 10_000


def best_us(call, *arguments, seconds=0.4):
    """Microseconds per call, the shortest of all measured: what else the machine does only ever adds to it."""
    call(*arguments)
    start = time.perf_counter()
    call(*arguments)
    # The clock takes 50 ns, so short calls are measured in groups.
    group = range(max(1, min(64, int(20e-6 / max(time.perf_counter() - start, 1e-7)))))
    shortest, until = float("inf"), start + seconds
    rounds = 0
    while (begin := time.perf_counter()) < until or rounds < 30:
        rounds += 1
        for _ in group:
            call(*arguments)
        shortest = min(shortest, (time.perf_counter() - begin) / len(group))
    return shortest * 1e6


def one(kind):
    from mooncake import engine as module

    logging.getLogger("mooncake.engine").setLevel(logging.CRITICAL)  # upstream's goes where GLOG_minloglevel says
    engine = module.TransferEngine()
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    own = f"127.0.0.1:{engine.get_rpc_port()}"
    memory = mmap.mmap(-1, 16 << 20)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert engine.register_memory(base, len(memory)) == 0
    half = base + (8 << 20)

    here, there, lengths = [base + 64 * i for i in range(COUNT)], [half + 64 * i for i in range(COUNT)], [8] * COUNT
    figures = {
        "get_rpc_port": best_us(engine.get_rpc_port),
        "batch of 1, refused": best_us(engine.batch_transfer_sync_write, own, [base], [half], []),
        "batch of 10 000, refused": best_us(engine.batch_transfer_sync_write, own, here, there, lengths[:-1]),
        "own segment, 8 bytes": best_us(engine.transfer_sync_write, own, base, half, 8),
        "own segment, 10 000 x 8 bytes": best_us(engine.batch_transfer_sync_write, own, here, there, lengths),
    }
    peer = subprocess.Popen([sys.executable, str(TOP / "python/tests/peer.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        segment = json.loads(peer.stdout.readline())["segment"]
        peer.stdin.write(b'{"do": "register", "length": 16777216}\n')
        peer.stdin.flush()
        remote = json.loads(peer.stdout.readline())["address"]
        figures["peer over TCP, 8 bytes"] = best_us(engine.transfer_sync_write, segment, base, remote, 8)
        away = [remote + 64 * i for i in range(COUNT)]
        figures["peer over TCP, 10 000 x 8 bytes"] = best_us(engine.batch_transfer_sync_write, segment, here, away, lengths)
        if kind == "ours":
            figures |= ours(engine, segment, base, remote, here, away, lengths)
    finally:
        peer.stdin.close()
        peer.wait()
    return figures


def ours(engine, segment, base, remote, here, away, lengths):
    """What upstream's 0.3.13 does not have: arrays, and the native package."""
    import mooncake_te
    import numpy

    arrays = [numpy.array(column, dtype=numpy.uint64) for column in (here, away, lengths)]
    figures = {"peer over TCP, arrays of 10 000": best_us(engine.batch_transfer_sync_write_arrays, segment, *arrays)}
    with mooncake_te.Engine("127.0.0.1", protocol="tcp") as native, native.open(segment) as peer:
        region = native.register_address(base + (16 << 20) - 4096, 4096)
        figures["native, peer over TCP, 8 bytes"] = best_us(peer.write, region.address, remote, 8)
    return figures


def ways_to_bind():
    """Converting three lists of 10 000 ints, and reaching three arrays, in each way that ctypes and cffi have."""
    import array
    import struct

    import numpy

    lists = [[(1 << 46) + 64 * i for i in range(COUNT)] for _ in range(3)]
    arrays = [numpy.array(column, dtype=numpy.uint64) for column in lists]
    pack, many = struct.Struct(f"={COUNT}Q"), ctypes.c_uint64 * COUNT
    figures = {
        "lists by array.array": best_us(lambda: [array.array("Q", column) for column in lists]),
        "lists by struct": best_us(lambda: [pack.pack(*column) for column in lists]),
        "lists by a ctypes array": best_us(lambda: [many(*column) for column in lists]),
        "lists by numpy": best_us(lambda: [numpy.array(column, dtype=numpy.uint64) for column in lists]),
        "arrays by __array_interface__": best_us(lambda: [column.__array_interface__["data"][0] for column in arrays]),
    }
    from mooncake_te._arrays import borrow

    figures["arrays by Py_buffer, checked (what is used)"] = best_us(lambda: [borrow(column, "x") for column in arrays])
    try:
        from cffi import FFI
    except ImportError:
        return figures
    ffi = FFI()
    figures["lists by cffi"] = best_us(lambda: [ffi.new("uint64_t[]", column) for column in lists])
    figures["arrays by cffi's from_buffer"] = best_us(lambda: [ffi.from_buffer("uint64_t[]", column) for column in arrays])
    return figures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", choices=["ours", "upstream"])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one)))
        return
    pythons = {"ours": sys.executable, "upstream": os.environ.get("UPSTREAM_PYTHON", str(TOP / "target/venv/bin/python"))}
    runs = {kind: [] for kind in pythons}
    for _ in range(arguments.runs):
        for kind, python in pythons.items():
            environment = {key: value for key, value in os.environ.items() if kind == "ours" or key != "PYTHONPATH"}
            environment["GLOG_minloglevel"] = "3"
            said = subprocess.run([python, __file__, "--one", kind], capture_output=True, text=True, env=environment)
            if said.returncode != 0:
                sys.exit(said.stderr)
            runs[kind].append(json.loads(said.stdout.splitlines()[-1]))
    print(f"{'microseconds, medians of the runs':45} {'ours':>10} {'upstream':>10}")
    for name in runs["ours"][0]:
        medians = [statistics.median(run[name] for run in runs[kind]) if name in runs[kind][0] else None for kind in pythons]
        print(f"{name:45} " + " ".join(f"{value:10.2f}" if value is not None else f"{'-':>10}" for value in medians))
    for name, value in ways_to_bind().items():
        print(f"{name:45} {value:10.2f}")


if __name__ == "__main__":
    main()
