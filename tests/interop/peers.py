"""Starts peers and bench programs, and waits for what they announce. Used by the cases and by scripts/bench.py."""

import contextlib
import ctypes
import glob
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
VENV = os.path.join(TOP, "target", "venv")
KINDS = ("ours", "upstream")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    """No child outlives its case, not even a stopped one when the case itself is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A child process whose output lines are collected by one thread per stream, so that it never blocks on a full pipe."""

    def __init__(self, command, env=None, stdin=subprocess.DEVNULL):
        self.process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            preexec_fn=die_with_parent,
        )
        self.name = os.path.basename(command[-1] if command[0] == sys.executable else command[0])
        self.lines = {"out": [], "err": []}
        self.changed = threading.Condition()  # guards lines and open_streams
        self.open_streams = 2
        self.threads = [
            threading.Thread(target=self.collect, args=pair, daemon=True)
            for pair in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for thread in self.threads:
            thread.start()

    def collect(self, which, stream):
        for line in stream:
            with self.changed:
                self.lines[which].append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.open_streams -= 1
            self.changed.notify_all()

    def wait_for(self, pattern, seconds, which=("out", "err")):
        """The first match of `pattern` in a line, past or future; the log goes into the error when none comes in time."""

        def found():
            for stream in which:
                for line in self.lines[stream]:
                    if match := re.search(pattern, line):
                        return match
            return self.open_streams == 0

        with self.changed:
            match = self.changed.wait_for(found, seconds)
        if not isinstance(match, re.Match):
            raise AssertionError(f"{self.name}: no line /{pattern}/ within {seconds} s\n{self.log()}")
        return match

    def finish(self, seconds):
        """(exit status, rusage) of the process once it has ended; it is killed when it does not end in time."""
        timer = threading.Timer(seconds, self.signal, [signal.SIGKILL])
        timer.start()
        _, status, usage = os.wait4(self.process.pid, 0)
        timer.cancel()
        self.process.returncode = os.waitstatus_to_exitcode(status)  # tells Popen that the child is reaped
        for thread in self.threads:
            thread.join(5)
        return self.process.returncode, usage

    def signal(self, number):
        """Not Popen.send_signal: that reaps a child that has just ended, and its rusage would be lost."""
        if self.process.returncode is None:
            os.kill(self.process.pid, number)
            if number == signal.SIGSTOP:
                self.await_stopped()

    def await_stopped(self):
        """The signal is sent, but a thread stops only when it next runs."""
        tasks = f"/proc/{self.process.pid}/task"
        deadline = time.monotonic() + 10
        while any(open(f"{tasks}/{task}/stat").read().rsplit(")", 1)[1].split()[0] != "T" for task in os.listdir(tasks)):
            if time.monotonic() > deadline:
                raise RuntimeError("the peer does not stop")
            time.sleep(0.001)

    def kill(self):
        if self.process.returncode is None:
            self.signal(signal.SIGKILL)
            self.finish(10)

    def log(self):
        with self.changed:
            return "\n".join(f"  [{self.name} {which}] {line}" for which in self.lines for line in self.lines[which][-40:])


class Peer(Child):
    """A running peer.py; each command is a method: peer.fill(seed=1, offset=0, length=5)."""

    def __init__(self, kind, env=None):
        super().__init__([sys.executable, os.path.join(HERE, "peer.py"), kind], env, subprocess.PIPE)
        self.kind, self.name, self.answered = kind, kind, 0
        self.segment = self.reply(30)["segment"]
        self.base = None

    def reply(self, seconds):
        with self.changed:
            self.changed.wait_for(lambda: len(self.lines["out"]) > self.answered or self.open_streams == 0, seconds)
            if len(self.lines["out"]) <= self.answered:
                line = None
            else:
                line = self.lines["out"][self.answered]
                self.answered += 1
        if line is None:
            raise AssertionError(f"{self.kind}: no reply within {seconds} s (exit status {self.process.poll()})\n{self.log()}")
        return json.loads(line)

    def call(self, do, **members):
        print(json.dumps({"do": do, **members}), file=self.process.stdin, flush=True)
        reply = self.reply(90)
        assert "exception" not in reply, f"{self.kind} {do}: {reply['exception']}\n{self.log()}"
        return reply

    def register(self, length):
        self.base = self.call("register", length=length)["addr"]
        return self.base

    def __getattr__(self, command):
        if command.startswith("_"):
            raise AttributeError(command)
        return lambda **members: self.call(command, **members)

    def close(self):
        """A clean end: stdin closes, the peer destroys its engine and exits 0."""
        self.process.stdin.close()
        status, _ = self.finish(20)
        assert status == 0, f"{self.kind}: exit status {status}\n{self.log()}"


@contextlib.contextmanager
def peer(kind, env=None, length=None):
    """A peer that is closed cleanly when the case passes and killed when it fails."""
    started = Peer(kind, env)
    try:
        if length:
            started.register(length)
        yield started
        if started.process.returncode is None:
            started.close()
    except BaseException:
        print(started.log(), file=sys.stderr)
        raise
    finally:
        started.kill()


def expect(condition, message, *children):
    if not condition:
        raise AssertionError("\n".join([message, *(child.log() for child in children)]))


# Bench programs. Both take upstream's flags.


def bench_program(kind):
    if kind == "ours":
        return os.environ.get("TE_BENCH") or os.path.join(TOP, "c_examples", "bench")
    # The wheel's bin/transfer_engine_bench is a Python wrapper around this program: it would add its own CPU time and not pass signals on.
    found = glob.glob(os.path.join(VENV, "lib", "python3*", "site-packages", "mooncake", "transfer_engine_bench"))
    if not found:
        raise SystemExit("no upstream bench program in target/venv: run 'make test', or scripts/venv.sh")
    return found[0]


REPORT = r"Test completed: duration ([\d.]+), batch count (\d+), throughput ([\d.]+) (\S+)"

# Upstream names itself only in its log; 0.3.13 prints this line before its buffer is registered, hence wait_for_buffers.
ANNOUNCEMENT = {"ours": r"^LISTENING (\S+)", "upstream": r"P2P handshake, listening on (\S+)"}


def bench(kind, mode, arguments, env=None):
    program = bench_program(kind)
    # pip drops the execute bit of this file; upstream's wrapper sets it in the same way.
    if not os.access(program, os.X_OK):
        os.chmod(program, 0o755)
    flags = {
        "mode": mode,
        "protocol": "tcp",
        "metadata_server": "P2PHANDSHAKE",
        "local_server_name": "127.0.0.1",
        "report_precision": 4,
        **arguments,
    }
    environment = dict(env or {})
    if kind == "ours" and "TE_LIB" in os.environ:
        folders = [os.path.dirname(os.path.abspath(os.environ["TE_LIB"])), environment.get("LD_LIBRARY_PATH")]
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, folders))
    child = Child([program, *(f"--{name}={value}" for name, value in flags.items())], environment)
    child.name = f"{kind} {mode}"
    return child


def bench_target(kind, arguments, env=None, seconds=30):
    """(child, segment name) of a target that has announced itself and published its buffer."""
    child = bench(kind, "target", arguments, env)
    try:
        segment = child.wait_for(ANNOUNCEMENT[kind], seconds).group(1)
        wait_for_buffers(segment, seconds)
    except BaseException:
        child.kill()
        raise
    return child, segment


def wait_for_buffers(segment, seconds):
    """Asks for the descriptor (handshake type 1) until it lists a buffer: an initiator that comes earlier finds nothing to write to."""
    host, port = segment.rsplit(":", 1)
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError):
            with socket.create_connection((host.strip("[]"), int(port)), 2) as connection:
                body = b"\x01{}\n"
                connection.sendall(struct.pack("<Q", len(body)) + body)
                stream = connection.makefile("rb")
                (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
                descriptor = json.loads(stream.read(length)[1:])
                if descriptor and descriptor.get("buffers"):
                    return descriptor
        if time.monotonic() >= deadline:
            raise AssertionError(f"{segment}: no registered buffer within {seconds} s")
        time.sleep(0.01)  # only paces the retries: the peer offers no event for this
