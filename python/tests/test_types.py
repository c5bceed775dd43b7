"""Type checkers find types for both packages, and the types are those of the code."""

import os
import subprocess
import sys
import textwrap

CONSUMER = """
import mooncake_te as te
from mooncake.engine import Read, TransferEngine, TransferNotify, TransferOpcode

engine = TransferEngine()
code: int = engine.initialize("host", "P2PHANDSHAKE", "tcp", "")
code = engine.transfer_sync("peer", 1, 2, 3, TransferOpcode.Write, TransferNotify("name", "msg"), nic_hint="mlx5_0")
code = engine.batch_transfer_sync("peer", [1], (2,), range(3), Read)
names: list[str] = [note.name for note in engine.get_notifies()]
drained: bool = engine.submit_scatter_write("peer", [1], [1], [1], [1], [[1]], [[1]], [[1]]).drained
data: bytes = engine.read_bytes_from_buffer(1, 2)
with te.Engine("host") as native, native.open("peer") as peer:
    with native.register(bytearray(5)) as region:
        peer.write(region, peer.buffers[0])
    with peer.submit_read([1], [2], [3]) as batch:
        batch.wait(timeout=1.5)
        completed: int = batch.status().completed
try:
    native.probe("peer")
except te.TransferEngineError as error:
    again: bool = error.retryable
"""
WRONG = {
    'engine.initialize("host")': "call-arg|arg-type",
    'engine.transfer_sync_write("peer", "1", 2, 3)': "arg-type",
    "engine.get_rpc_port().upper()": "attr-defined",
    "te.Engine()": "call-arg",
    'native.open("peer").write(1, "2")': "arg-type",
}


def mypy(*arguments):
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", sys.executable, "--cache-dir", os.devnull, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_sources_are_typed():
    checked = mypy("-p", "mooncake_te", "-p", "mooncake_te_compat", "-p", "mooncake.engine")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_consumer_is_checked(tmp_path):
    good = tmp_path / "good.py"
    good.write_text(textwrap.dedent(CONSUMER))
    checked = mypy(str(good))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    wrong = tmp_path / "wrong.py"
    wrong.write_text(CONSUMER + "\n".join(WRONG) + "\n")
    lines = mypy(str(wrong)).stdout.splitlines()
    first = len(CONSUMER.splitlines()) + 1
    for offset, (statement, kinds) in enumerate(WRONG.items()):
        found = [line for line in lines if f"wrong.py:{first + offset}: error" in line]
        assert any(f"[{kind}]" in line for line in found for kind in kinds.split("|")), (statement, lines)


def test_the_types_of_mooncake_engine_are_those_of_the_module(tmp_path):
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "--ignore-missing-stub", "mooncake.engine"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)  # it writes a cache
    assert checked.returncode == 0, checked.stdout + checked.stderr
