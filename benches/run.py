#!/usr/bin/env python3
"""This library beside the released upstream and beside what the machine can do, path by path, in one run. Run by `make bench`.

For each row the columns take turns, run by run, so that a busy minute hits all of them; medians count. The limit of a row is the
same memory moved in the same pattern without any library (benches/limits.c), or the rate of the simulated lines. CPU seconds per
GB are those of both ends together. `bench.py` has the runs, tests/simverbs the simulated NICs; what `make bench-rdma` left of the
guest is shown too. Writes OUT.json and OUT.svg.

    run.py [--quick] [--only tcp,own,host,sim,latency,curves] [--out benches/results/paths]
"""

import argparse
import contextlib
import glob
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "scripts"))
sys.path.insert(0, os.path.join(TOP, "benches"))
from bench import KIB, LATENCY, REPORT, machine, one_run  # noqa: E402
from draw import draw  # noqa: E402
from peers import bench, bench_program, expect  # noqa: E402

MIB = KIB * KIB
TCP = [("write", 4 * KIB, 128), ("read", 4 * KIB, 128), ("write", 64 * KIB, 16), ("read", 64 * KIB, 16), ("write", 64 * KIB, 128)]
TCP += [(op, *shape) for shape in ((MIB, 16), (16 * MIB, 4)) for op in ("write", "read")]
OWN = [("write", 64 * KIB, 16), ("write", MIB, 16), ("write", 16 * MIB, 4)]
LINES = (1, 2, 4, 8)
PEERS = (4, 16)
LINE_GB = 50  # of a simulated line of 400 Gbit/s
CURVE = [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB]
GUEST = os.path.join(TOP, "target", "rxe", "out", "bench", "table")


LIMITS = {"memcpy": "memcpy", "vmread": "process_vm_readv"}


def flags_of_bench():
    """What c_examples/bench says of its flags: it knows the transports that it was built with."""
    return subprocess.run([bench_program("ours"), "--help"], capture_output=True, text=True, check=True).stdout


def named(block):
    return f"{block // MIB} MiB" if block >= MIB else f"{block // KIB} KiB"


def simulated(count, gbps, latency_us, op_ns):
    """(environment, flags) of both processes: so many NICs, which leave the payload where it is."""
    devices = ",".join(f"sim{number}" for number in range(count))
    env = {"LD_LIBRARY_PATH": os.path.join(TOP, "target", "simverbs"), "SIMVERBS_DEVICES": devices, "SIMVERBS_NOCOPY": "1"}
    env |= {"SIMVERBS_GBPS": gbps, "SIMVERBS_LAT_US": latency_us, "SIMVERBS_OP_NS": op_ns, "SIMVERBS_QUIET": "1"}
    return env | {"SIMVERBS_SHM": f"bench-{os.getpid()}"}, {"protocol": "rdma", "device_name": devices}


class Runs:
    """Runs one column once, and returns what it measured: GB/s, CPU seconds per GB of both ends, and latencies in us."""

    def __init__(self, seconds, limits, peers):
        self.seconds, self.limits, self.peers = seconds, limits, peers

    def between(self, kind, shape, env=None, more=None):
        op, block, batch = shape
        rate, *cpu, lines = one_run(kind, env or {}, op, block, batch, 1, self.seconds, more)
        return self.found(rate, sum(cpu), block * batch, "\n".join(lines))

    def own(self, shape):
        op, block, batch = shape
        size = max(2 * block * batch, 64 * MIB)
        flags = {"segment_id": "self", "operation": op, "block_size": block, "batch_size": batch, "threads": 1}
        child = bench("ours", "initiator", {**flags, "duration": self.seconds, "buffer_size": size})
        status, used = child.finish(self.seconds + 60)
        expect(status == 0, f"exit status {status}", child)
        seconds, batches = child.wait_for(REPORT, 0).groups()[:2]
        gigabytes = int(batches) * batch * block / 1e9
        return self.found(gigabytes / float(seconds), (used.ru_utime + used.ru_stime) / gigabytes, block * batch, "\n".join(child.lines["out"]))

    def limit(self, what, shape):
        command = [self.limits, what, str(shape[1]), str(shape[2]), str(self.seconds)]
        rate, cpu, *latency = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        return {"gb_per_s": rate, "cpu_s_per_gb": cpu, "mean_us": shape[1] / rate / 1e3} | dict(zip(("p50", "p99", "p99.9"), latency))

    def many(self, count, shape, env):
        """To so many peers at once."""
        command = [self.peers, str(count), str(shape[1]), str(shape[2]), str(self.seconds)]
        done = subprocess.run(command, env={**os.environ, **env, "MC_LOG_LEVEL": "ERROR"}, capture_output=True, text=True, check=True)
        rate, cpu, least, most = map(float, done.stdout.split())
        return self.found(rate, cpu, shape[1] * shape[2], "") | {"batches_of_peers": [least, most]}

    @staticmethod
    def found(rate, cpu, bytes_, text):
        """The mean is of a whole batch."""
        latency = {f"p{name}": float(value) for name, value, _ in re.findall(LATENCY, text)}
        return {"gb_per_s": rate, "cpu_s_per_gb": cpu, "mean_us": bytes_ / rate / 1e3, **latency}


def rows_of(runs, only):
    """(group, path, shape, {column: function that runs it once}, name of the limit)."""
    if "tcp" in only:
        for shape in TCP:
            yield "rates", "TCP", shape, both(runs, shape) | {"limit": lambda shape=shape: runs.limit("tcp", shape)}, "a plain stream"
    if "own" in only:
        for shape in OWN:
            columns = {"ours": lambda shape=shape: runs.own(shape), "limit": lambda shape=shape: runs.limit("memcpy", shape)}
            yield "rates", "own segment", shape, columns, "memcpy"
    if "host" in only and "shm" in flags_of_bench():
        for memory, limit in (("shared", "memcpy"), ("private", "vmread")):
            for shape in (*OWN, ("read", MIB, 16)):
                columns = both(runs, shape, None, {"protocol": "shm", "memory": memory}) | {"limit": lambda shape=shape, limit=limit: runs.limit(limit, shape)}
                del columns["upstream"]
                yield "rates", f"same host, {memory} memory", shape, columns, LIMITS[limit]
    if "sim" in only:
        for count in LINES:
            shape, line = ("write", MIB, 128), {"gb_per_s": LINE_GB * count, "cpu_s_per_gb": 0, "mean_us": 0}
            columns = both(runs, shape, *simulated(count, "400", "2", "10")) | {"limit": lambda line=line: line}
            yield "rates", f"RDMA, {count} x 400 Gb/s simulated", shape, columns, "the lines"
        shape, line = ("write", MIB, 16), {"gb_per_s": LINE_GB, "cpu_s_per_gb": 0, "mean_us": 0}
        for count in PEERS:
            columns = {"ours": lambda count=count: runs.many(count, shape, simulated(1, "400", "2", "10")[0]), "limit": lambda: line}
            yield "rates", f"RDMA, {count} peers at once over 400 Gb/s simulated", shape, columns, "the line"
        shape = ("write", 64 * KIB, 128)
        yield "rates", "RDMA, infinitely fast NIC simulated", shape, both(runs, shape, *simulated(1, "inf", "0", "0")), ""
    if "latency" in only:
        for shape in (("write", 4 * KIB, 1), ("read", 4 * KIB, 1)):
            yield "latency", "TCP", shape, both(runs, shape) | {"limit": lambda shape=shape: runs.limit("pingpong", shape)}, "a plain socket"
            yield "latency", "RDMA, 2 us simulated", shape, both(runs, shape, *simulated(1, "400", "2", "10")), ""
        memories = ("shared", "private") if "shm" in flags_of_bench() else ()
        for memory, shape in itertools.product(memories, (("write", 4 * KIB, 1), ("read", 4 * KIB, 1))):
            flags = {"protocol": "shm", "memory": memory}
            columns = {"ours": lambda shape=shape, flags=flags: runs.between("ours", shape, None, flags)}
            yield "latency", f"same host, {memory} memory", shape, columns, ""
        columns = {"ours": lambda: runs.own(shape), "limit": lambda: runs.limit("memcpy", shape)}
        yield "latency", "own segment", shape, columns, "memcpy"
    if "curves" in only:
        for block in CURVE:
            for batch in (1, 16 if block <= MIB else 4):
                shape = ("write", block, batch)
                limit = "pingpong" if batch == 1 else "tcp"
                yield "curves", "TCP", shape, both(runs, shape) | {"limit": lambda shape=shape, limit=limit: runs.limit(limit, shape)}, ""


def both(runs, shape, env=None, more=None):
    return {kind: lambda kind=kind: runs.between(kind, shape, env, more) for kind in ("ours", "upstream")}


def attempt(column, run):
    """Upstream may fail where it likes: then its place stays empty. Ours may not."""
    try:
        return run()
    except AssertionError as failure:
        if column != "upstream":
            raise
        print(f"  upstream failed: {str(failure).splitlines()[0]}", file=sys.stderr)
        return None


def measured(options, runs):
    for group, path, shape, columns, limit in rows_of(runs, options.only):
        found = {column: [] for column in columns}
        for _ in range(options.runs if group != "curves" else options.curve_runs):
            for column, run in columns.items():
                found[column].append(attempt(column, run))
        kept = {column: [run for run in all_runs if run] for column, all_runs in found.items()}
        row = {"group": group, "path": path, "op": shape[0], "block": shape[1], "batch": shape[2], "limit_is": limit}
        row["runs"] = {column: all_runs for column, all_runs in kept.items() if all_runs}
        print(f"  {group}: {path}, {shape[0]} {named(shape[1])} x {shape[2]}: " + brief(row), file=sys.stderr, flush=True)
        yield row


def middle(row, column, what):
    values = [run[what] for run in row["runs"].get(column, []) if what in run]
    return statistics.median(values) if values else None


def brief(row):
    return ", ".join(f"{column} {middle(row, column, 'gb_per_s'):.3g} GB/s" for column in row["runs"])


def show(value, form="{:.3g}"):
    return "" if value is None else form.format(value)


def ratio(row, column, form):
    ours, other = middle(row, "ours", "gb_per_s"), middle(row, column, "gb_per_s")
    return form.format(ours / other) if other else ""


def guest():
    """Rows of the last `make bench-rdma`: lines of KEY MB/s TICKS BYTES; a tick is 10 ms of all processors of the guest."""
    with contextlib.suppress(OSError), open(GUEST, encoding="utf-8") as file:
        found = {}
        for key, rate, ticks, moved in re.findall(r"^    (\S+) ([\d.]+) (\d+) (\d+)$", file.read(), re.M):
            cpu = int(ticks) * 1e7 / int(moved) if int(moved) else 0
            found.setdefault(key, []).append({"gb_per_s": float(rate) / 1e3, "cpu_s_per_gb": cpu, "mean_us": 0})
        columns = {"ours": "ours", "upstream": "upstream", "limit": "perftest"}
        for op in ("write", "read"):
            for block in (4 * KIB, 64 * KIB, MIB):
                runs = {column: found.get(f"{key}-{op}-{block}") for column, key in columns.items()}
                runs = {column: one for column, one in runs.items() if one}
                if runs.get("ours"):
                    yield {"group": "rates", "path": "RDMA, soft-RoCE in the guest", "op": op, "block": block, "batch": 16, "limit_is": f"ib_{op}_bw", "runs": runs}


def print_rates(rows):
    print("\n| path | | ours GB/s | upstream GB/s | limit GB/s | ours : upstream | of the limit | CPU-s/GB, both ends: ours | upstream | limit |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        what = f"{row['op']} {named(row['block'])} x {row['batch']}"
        limit = show(middle(row, "limit", "gb_per_s")) + (f" ({row['limit_is']})" if "limit" in row["runs"] else "")
        rates = [show(middle(row, column, "gb_per_s")) for column in ("ours", "upstream")] + [limit]
        ratios = [ratio(row, "upstream", "{:.2f}"), ratio(row, "limit", "{:.0%}")]
        cpu = [show(middle(row, column, "cpu_s_per_gb")) for column in ("ours", "upstream", "limit")]
        print("| " + " | ".join([row["path"], what, *rates, *ratios, *cpu]) + " |")


def print_latencies(rows):
    print("\n| latency in us, one at a time | | ours p50 | p99 | p99.9 | mean: ours | upstream | ours : upstream | limit p50 |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        ours = [show(middle(row, "ours", name)) for name in ("p50", "p99", "p99.9", "mean_us")]
        limit = show(middle(row, "limit", "p50")) + (f" ({row['limit_is']})" if "limit" in row["runs"] else "")
        against = middle(row, "upstream", "mean_us")
        part = f"{middle(row, 'ours', 'mean_us') / against:.2f}" if against else ""
        print("| " + " | ".join([row["path"], f"{row['op']} {named(row['block'])}", *ours, show(against), part, limit]) + " |")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of a second each, some 4 minutes in all")
    parser.add_argument("--runs", type=int, help="runs per row and column (5, or 1)")
    parser.add_argument("--only", default="tcp,own,host,sim,latency,curves", type=lambda text: text.split(","), help="tcp,own,host,sim,latency,curves")
    parser.add_argument("--out", default=os.path.join(TOP, "benches", "results", "paths"), help="where .json and .svg go")
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.quick else 5)
    options.curve_runs = 1 if options.quick else 3
    return options


def main():
    options = arguments()
    subprocess.run(["make", "-s", "-C", os.path.join(TOP, "tests", "simverbs"), f"OUT={TOP}/target/simverbs"], check=True)
    found = {"machine": machine(), "runs": options.runs, "seconds_per_run": 1 if options.quick else 2}
    try:
        with tempfile.TemporaryDirectory() as folder:
            programs = [os.path.join(folder, name) for name in ("limits", "peers")]
            library = os.path.dirname(os.path.abspath(os.environ.get("TE_LIB") or os.path.join(TOP, "target", "release", "lib")))
            linked = [f"-I{TOP}/include", f"-L{library}", f"-Wl,-rpath,{library}", "-ltransfer_engine"]
            for program in programs:
                source = os.path.join(TOP, "benches", os.path.basename(program) + ".c")
                flags = linked if program.endswith("peers") else []
                subprocess.run(["cc", "-std=c11", "-O2", "-D_GNU_SOURCE", source, "-o", program, *flags], check=True)
            found["rows"] = list(measured(options, Runs(found["seconds_per_run"], *programs)))
    finally:
        for left in glob.glob(f"/dev/shm/simverbs-*bench-{os.getpid()}*"):
            os.remove(left)
    found["rows"] += list(guest())
    found["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    with open(options.out + ".json", "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
        file.write("\n")
    of = lambda group: [row for row in found["rows"] if row["group"] == group]  # noqa: E731
    if of("curves"):
        with open(options.out + ".svg", "w", encoding="utf-8") as file:
            file.write(draw(found))
    print("{processor}, {processors} processors, {memory_gib} GiB, Linux {kernel}, {date}, load {load_before} to {load_after}".format(**found["machine"]))
    print(f"{found['machine']['upstream']}; medians of {options.runs} runs of {found['seconds_per_run']} s, one submitting thread")
    if of("rates"):
        print_rates(of("rates"))
    if of("latency"):
        print_latencies(of("latency"))
    print(f"\nwritten to {os.path.relpath(options.out, TOP)}.json" + (" and .svg" if of("curves") else ""))


if __name__ == "__main__":
    main()
