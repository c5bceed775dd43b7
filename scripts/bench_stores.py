#!/usr/bin/env python3
"""Figures of the metadata stores: opening a segment, registering buffers, memory and traffic per known segment.

    bench_stores.py [--lib target/release/libtransfer_engine.so] [--stores etcd,redis,mte,wheel] [--known 1000]

Starts a fresh server for each row, on loopback. Upstream is measured where its wheel can do the same (registering).
"limit" is the largest batch that the store takes, searched up to 100 000 buffers, and what the next larger one is told.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests", "interop"))
PYTHON = os.path.join(TOP, "target", "venv", "bin", "python")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, kind):
        self.kind, self.port, self.folder = kind, free_port(), tempfile.mkdtemp()
        p = self.port
        command, self.url = {
            "etcd": (["etcd", "--data-dir", self.folder, "--listen-client-urls", f"http://127.0.0.1:{p}", "--advertise-client-urls",
                      f"http://127.0.0.1:{p}", "--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error",
                      # Every registration writes the whole descriptor: 10 000 are gigabytes.
                      "--quota-backend-bytes", str(8 << 30), "--auto-compaction-mode", "revision", "--auto-compaction-retention", "100"], f"etcd://127.0.0.1:{p}"),
            "redis": (["redis-server", "--port", str(p), "--bind", "127.0.0.1", "--save", ""], f"redis://127.0.0.1:{p}"),
            "mte": ([os.path.join(TOP, "target", "release", "mte"), "metadata-server", "--listen", f"127.0.0.1:{p}"], f"http://127.0.0.1:{p}/metadata"),
            "wheel": ([PYTHON, "-m", "mooncake.http_metadata_server", "--host", "127.0.0.1", "--port", str(p)], f"http://127.0.0.1:{p}/metadata"),
        }[kind]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if kind == "etcd":
                    with urllib.request.urlopen(f"http://127.0.0.1:{p}/health", timeout=1) as answer:
                        if b"true" in answer.read():
                            return
                else:
                    socket.create_connection(("127.0.0.1", p), 1).close()
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit(f"{kind} does not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def quantiles(seconds):
    ordered = sorted(seconds)
    return {"p50_us": round(statistics.median(ordered) * 1e6, 1), "p99_us": round(ordered[int(len(ordered) * 0.99)] * 1e6, 1)}


def timed(call):
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def curve(seconds):
    """The time of all calls, and of one call when 1, 10, 100, … buffers are registered already."""
    at = [place for place in (1, 10, 100, 1000, 10000) if place <= len(seconds)]
    near = {place: seconds[max(0, place - 5) : place] for place in at}
    return {"total_s": round(sum(seconds), 3), "us_at": {place: round(statistics.median(some) * 1e6) for place, some in near.items()}}


def loopback_bytes():
    """Everything that loopback has carried; run alone, it is the store's traffic."""
    with open("/proc/net/dev") as f:
        for line in f:
            if line.strip().startswith("lo:"):
                return int(line.split(":")[1].split()[0])


def ours(url, what, count):
    import te

    engine = te.Engine(name=f"bench-{os.getpid()}", store=url)
    lib, handle = engine.lib, engine.handle
    if what == "open":
        target = te.Engine(name="peer-0", store=url)
        cold = []
        for i in range(200):
            seconds, _ = timed(lambda: engine.open("peer-0"))
            cold.append(seconds)
            lib.removeLocalSegment(ctypes.c_void_p(handle), b"peer-0")
        engine.open("peer-0")
        warm = [timed(lambda: engine.open("peer-0"))[0] for _ in range(5000)]
        target.destroy()
        return {"cold": quantiles(cold), "warm": quantiles(warm)}
    if what == "register":
        memory = ctypes.create_string_buffer(count * 128)
        base = ctypes.addressof(memory)
        seconds = []
        for i in range(count):
            took, _ = timed(lambda: engine.register(base + 128 * i, 64))
            seconds.append(took)
        return curve(seconds)
    if what in ("batch", "limit"):

        class Entry(ctypes.Structure):
            _fields_ = [("addr", ctypes.c_void_p), ("length", ctypes.c_size_t)]

        memory = ctypes.create_string_buffer(count * 128)
        base = ctypes.addressof(memory)
        entries = (Entry * count)(*[Entry(base + 128 * i, 64) for i in range(count)])
        lib.registerLocalMemoryBatch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        text = ctypes.create_string_buffer(1024)

        def register(size):
            took, code = timed(lambda: lib.registerLocalMemoryBatch(handle, entries, size, b"cpu:0"))
            if code:
                lib.mte_last_error(text, 1024)
            return took, code

        if what == "batch":
            took, code = register(count)
            return {"total_s": round(took, 4), "code": code, "text": text.value.decode()[:300]}
        lib.unregisterLocalMemoryBatch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        addresses = (ctypes.c_void_p * count)(*[entry.addr for entry in entries])
        taken, refused = 0, count + 1
        while refused - taken > 1:
            size = (taken + refused + 1) // 2 if taken or refused <= count else count
            if register(size)[1]:
                refused = size
            else:
                taken = size
                if lib.unregisterLocalMemoryBatch(handle, addresses, size):
                    raise SystemExit("not unregistered")
        return {"taken": taken, "text": text.value.decode()[:400]}
    if what == "known":
        peers = [f"known-{i}" for i in range(count)]
        before_memory, before_bytes = rss(), loopback_bytes()
        for name in peers:
            engine.open(name)
        opened_memory, opened_bytes = rss(), loopback_bytes()
        time.sleep(10)
        return {
            "rss_kib": (opened_memory - before_memory) // 1024,
            "open_kib": (opened_bytes - before_bytes) // 1024,
            "idle_bytes_per_s": (loopback_bytes() - opened_bytes) // 10,
        }
    raise SystemExit(what)


def upstream(url, what, count):
    from mooncake.engine import TransferEngine

    engine = TransferEngine()
    if engine.initialize(f"bench-{os.getpid()}", url, "tcp", "") != 0:
        raise SystemExit("upstream does not start")
    memory = ctypes.create_string_buffer(count * 128)
    base = ctypes.addressof(memory)
    if what == "register":
        return curve([timed(lambda: engine.register_memory(base + 128 * i, 64))[0] for i in range(count)])
    if what == "batch":
        took, code = timed(lambda: engine.batch_register_memory([base + 128 * i for i in range(count)], [64] * count))
        return {"total_s": round(took, 4), "code": code}
    raise SystemExit(what)


def child(who, url, what, count, lib):
    environment = {**os.environ, "TE_LIB": lib, "MC_TCP_BIND_ADDRESS": "127.0.0.1", "MC_LOG_LEVEL": "ERROR", "GLOG_minloglevel": "2"}
    command = [PYTHON, os.path.abspath(__file__), "--child", who, url, what, str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(lines[-1][7:]) if lines else {"failed": (done.stderr or done.stdout)[-200:]}


def publish_known(server, count):
    """Descriptors of 100 buffers each, written as any peer would."""
    import base64

    buffers = [{"addr": 140000000000000 + i * 65536, "length": 65536, "name": "n"} for i in range(100)]
    for i in range(count):
        key = f"mooncake/ram/known-{i}"
        desc = {"name": f"known-{i}", "protocol": "tcp", "tcp_data_port": 1, "tcp_data_host": "127.0.0.1", "tcp_proto_version": 2, "buffers": buffers}
        value = json.dumps(desc, separators=(",", ":"))
        if server.kind == "etcd":
            body = json.dumps({"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()})
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{server.port}/v3/kv/put", body.encode()))
        elif server.kind == "redis":
            with socket.create_connection(("127.0.0.1", server.port)) as s:
                s.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key.encode(), len(value), value.encode()))
                s.recv(16)
        else:
            request = urllib.request.Request(f"{server.url}?key={urllib.parse.quote(key, safe='')}", value.encode(), method="PUT")
            urllib.request.urlopen(request)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lib", default=os.path.join(TOP, "target", "release", "libtransfer_engine.so"))
    parser.add_argument("--stores", default="etcd,redis,mte,wheel")
    parser.add_argument("--counts", default="1,1000,10000")
    parser.add_argument("--known", type=int, default=1000)
    parser.add_argument("--child", nargs=4)
    arguments = parser.parse_args()
    if arguments.child:
        who, url, what, count = arguments.child
        print("RESULT " + json.dumps({"ours": ours, "upstream": upstream}[who](url, what, int(count))), flush=True)
        os._exit(0)
    counts = list(map(int, arguments.counts.split(",")))
    for kind in arguments.stores.split(","):

        def report(who, what, count, prepare=lambda server: None):
            with Server(kind) as server:
                prepare(server)
                result = json.dumps(child(who, server.url, what, count, arguments.lib))
            print(f"{kind:6} {who:8} {what:8} {count:6} {result}", flush=True)

        report("ours", "open", 1)
        # Upstream's wheel has no Redis store.
        for who in ("ours",) if kind == "redis" else ("ours", "upstream"):
            for count in counts:
                report(who, "batch", count)
            report(who, "register", max(counts) if who == "ours" else min(max(counts), 1000))
        report("ours", "limit", 100000)
        report("ours", "known", arguments.known, lambda server: publish_known(server, arguments.known))


if __name__ == "__main__":
    main()
