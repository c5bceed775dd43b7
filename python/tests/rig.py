"""What the tests share: peers in processes of their own, scripts in processes of their own, memory with a pattern."""

import ctypes
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
UPSTREAM_PYTHON = TOP / "target" / "venv" / "bin" / "python"
PYTHONS = {"ours": sys.executable, "upstream": str(UPSTREAM_PYTHON)}
ENVIRONMENT = {**os.environ, "MC_LOG_LEVEL": "ERROR", "PYTHONDONTWRITEBYTECODE": "1"}
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


def die_with_parent():
    """No child outlives its test, not even a stopped one."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pattern(seed, length):
    return random.Random(seed).randbytes(length)


def memory(length, seed=None):
    """A numpy array of bytes, with the pattern of a seed, or zeros."""
    return numpy.frombuffer(bytearray(length if seed is None else pattern(seed, length)), dtype=numpy.uint8)


class Peer:
    """A running peer.py; each command is a method: peer.fill(seed=1, offset=0, length=5)."""

    def __init__(self, kind="ours", length=1 << 20, environment=None):
        self.process = subprocess.Popen(
            [PYTHONS[kind], str(HERE / "peer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if kind == "upstream" else None,
            env={**ENVIRONMENT, **(environment or {})},
            preexec_fn=die_with_parent,
        )
        self.pid = self.process.pid
        self.segment = self.reply()["segment"]
        if length:
            registered = self.register(length=length)
            assert registered["result"] == 0, registered
            self.address = registered["address"]

    def reply(self):
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if ready else b""
        assert line, f"the peer does not answer (exit status {self.process.poll()})"
        return json.loads(line)

    def __getattr__(self, command):
        if command.startswith("_"):
            raise AttributeError(command)

        def call(**members):
            self.process.stdin.write(json.dumps({"do": command, **members}).encode() + b"\n")
            self.process.stdin.flush()
            return self.reply()

        return call

    def stop(self):
        """A stopped peer takes nothing: a transfer that is larger than the socket buffers hangs until it goes on."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while any(stat_of(self.pid, task) != "T" for task in os.listdir(f"/proc/{self.pid}/task")):
            assert time.monotonic() < deadline, "the peer does not stop"

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def stat_of(pid, task):
    return Path(f"/proc/{pid}/task/{task}/stat").read_text().rsplit(")", 1)[1].split()[0]


def run(script, *arguments, seconds=90, environment=None):
    """The finished process of a script, which is killed when it takes longer."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=HERE,
        env={**ENVIRONMENT, **(environment or {})},
        preexec_fn=die_with_parent,
    )


def start(script, *arguments):
    """A script that runs beside the test; its lines come by stdout."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        env=ENVIRONMENT,
        preexec_fn=die_with_parent,
    )
