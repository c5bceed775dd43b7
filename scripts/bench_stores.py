#!/usr/bin/env python3
"""Figures of the metadata stores: opening a segment, registering buffers, memory and traffic per known segment.

    bench_stores.py [--lib target/release/libtransfer_engine.so] [--stores etcd,redis,mte,wheel] [--known 1000]

Starts each server itself, on loopback. Upstream is measured where its wheel can do the same (registering).
"""

import argparse
import ctypes
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
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
                      f"http://127.0.0.1:{p}", "--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error"], f"etcd://127.0.0.1:{p}"),
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

    def stop(self):
        self.process.kill()
        self.process.wait()


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
        return {"total_s": round(sum(seconds), 3), "first_us": round(seconds[0] * 1e6), "last_us": round(statistics.median(seconds[-10:]) * 1e6)}
    if what == "batch":

        class Entry(ctypes.Structure):
            _fields_ = [("addr", ctypes.c_void_p), ("length", ctypes.c_size_t)]

        memory = ctypes.create_string_buffer(count * 128)
        base = ctypes.addressof(memory)
        entries = (Entry * count)(*[Entry(base + 128 * i, 64) for i in range(count)])
        lib.registerLocalMemoryBatch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        took, code = timed(lambda: lib.registerLocalMemoryBatch(handle, entries, count, b"cpu:0"))
        text = ctypes.create_string_buffer(512)
        if code:
            lib.mte_last_error(text, 512)
        return {"total_s": round(took, 4), "code": code, "text": text.value.decode()[:300]}
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
        seconds = [timed(lambda: engine.register_memory(base + 128 * i, 64))[0] for i in range(count)]
        return {"total_s": round(sum(seconds), 3), "first_us": round(seconds[0] * 1e6), "last_us": round(statistics.median(seconds[-10:]) * 1e6)}
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


def publish_known(server, count, lib):
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
    for kind in arguments.stores.split(","):
        server = Server(kind)
        try:
            report = lambda who, what, count: print(
                f"{kind:6} {who:8} {what:8} {count:6} {json.dumps(child(who, server.url, what, count, arguments.lib))}", flush=True
            )
            report("ours", "open", 1)
            for who in ("ours", "upstream"):
                if who == "upstream" and kind == "redis":
                    continue  # not in its build
                for count in map(int, arguments.counts.split(",")):
                    report(who, "batch", count)
                for count in map(int, arguments.counts.split(",")):
                    if count <= 1000 or who == "ours":
                        report(who, "register", count)
            publish_known(server, arguments.known, arguments.lib)
            report("ours", "known", arguments.known)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
