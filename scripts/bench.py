#!/usr/bin/env python3
"""Throughput and CPU cost of this library beside the released upstream, over TCP on loopback, as a Markdown table.

Both sides run the same program (upstream's transfer_engine_bench, and c_examples/bench with the same flags), a fresh
target and initiator for every run. The implementations take turns, so that a busy minute of the machine hits all of them;
medians are reported. CPU-s/GB is user + system time of the whole process (os.wait4), start-up included, per GB moved.

Run by `make bench BENCH_ARGS='…'`. `--ours upstream` puts upstream on both sides: what differs then is noise. `--json FILE`
keeps every run with a description of the machine, for scripts/plot.py.
"""

import argparse
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests", "interop"))
from peers import KINDS, REPORT, bench, bench_target, expect  # noqa: E402 (the interop tests own the knowledge of how peers announce themselves)

KIB = 1024
# The released 0.3.13.post1 pools connections unless told not to; older releases the other way round. Hence both can be asked for.
POOL, ONE_SHOT = ({"MC_TCP_ENABLE_CONNECTION_POOL": value} for value in "10")
# The report of c_examples/bench carries its latencies on a line with "p50 <number>", "p99 <number>" and "p99.9 <number>".
LATENCY = r"p(50|99\.9|99)\s+([\d.]+)\s*(ns|us|µs|ms)?"
MICROSECONDS = {"ns": 1e-3, "us": 1, "µs": 1, "ms": 1e3}


def size(text):
    units = {"k": KIB, "m": KIB * KIB}
    match = re.fullmatch(r"(\d+)([km]?)(i?b)?", text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"not a size: {text}")
    return int(match.group(1)) * units.get(match.group(2), 1)


def several(convert):
    return lambda text: [convert(part) for part in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", type=several(str), default=["write", "read"], help="write,read")
    parser.add_argument("--block", type=several(size), default=[4 * KIB, 64 * KIB, KIB * KIB], help="4k,64k,1m")
    parser.add_argument("--batch", type=several(int), default=[1, 16, 128], help="1,16,128")
    parser.add_argument("--threads", type=several(int), default=[1, 4], help="1,4")
    parser.add_argument("--runs", type=int, default=3, help="runs per cell and implementation")
    parser.add_argument("--duration", type=int, default=1, help="seconds per run")
    parser.add_argument("--pool-also", action="store_true", help="upstream with MC_TCP_ENABLE_CONNECTION_POOL=1 as well")
    parser.add_argument("--one-shot-also", action="store_true", help="upstream with MC_TCP_ENABLE_CONNECTION_POOL=0 as well")
    parser.add_argument("--ours", choices=KINDS, default="ours", help="what stands in the column 'ours'")
    parser.add_argument("--no-latency", action="store_true", help="skip the latency rows")
    parser.add_argument("--json", metavar="FILE", help="write every run and the machine's description there")
    return parser.parse_args()


def one_run(kind, env, op, block, batch, threads, duration, more=None):
    """(GB/s, initiator CPU-s/GB, target CPU-s/GB, initiator's output lines) of one run; `more` are flags of both sides."""
    # Upstream raises a buffer that is too small for its threads by itself, on the initiator only by its own flags.
    shape = {"block_size": block, "batch_size": batch, "threads": threads, "buffer_size": max(block * batch * threads, 64 * KIB * KIB), **(more or {})}
    target, segment = bench_target(kind, shape, env)
    initiator = None
    try:
        initiator = bench(kind, "initiator", {**shape, "segment_id": segment, "duration": duration, "operation": op}, env)
        status, used = initiator.finish(duration + 60)
        expect(status == 0, f"exit status {status}", initiator, target)
        seconds, batches = initiator.wait_for(REPORT, 0).groups()[:2]
        target.signal(signal.SIGTERM)
        target_status, used_by_target = target.finish(30)
        expect(target_status == 0, f"exit status {target_status} after SIGTERM", target)
    finally:
        for child in filter(None, (initiator, target)):
            child.kill()
    gigabytes = int(batches) * batch * block / 1e9
    expect(gigabytes > 0, "nothing was moved", initiator, target)
    cpu = [(usage.ru_utime + usage.ru_stime) / gigabytes for usage in (used, used_by_target)]
    return gigabytes / float(seconds), *cpu, initiator.lines["out"] + initiator.lines["err"]


def medians(runs):
    """Median of each of the three numbers."""
    return [statistics.median(run[i] for run in runs) for i in range(3)]


def number(value):
    return f"{value:.3g}"


def rate_cell(result):
    return f"{number(result[0])} | {number(result[1])} / {number(result[2])}"


def first_line(command):
    try:
        return subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout.strip().partition("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return ""


def matched(path, pattern):
    with open(path, encoding="utf-8") as file:
        found = re.search(pattern, file.read(), re.M)
    return found.group(1).strip() if found else ""


def machine():
    """What was measured, on what, and how busy that was when the runs began."""
    upstream = "mooncake-transfer-engine-non-cuda"
    wheel = first_line([sys.executable, "-c", f"from importlib.metadata import version; print(version('{upstream}'))"])
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": matched("/proc/cpuinfo", r"^model name\s*: (.*)") or os.uname().machine,
        "processors": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "virtual": bool(re.search(r"\bhypervisor\b", matched("/proc/cpuinfo", r"^flags\s*: (.*)"))),
        "kernel": os.uname().release,
        "load_before": round(os.getloadavg()[0], 2),
        "ours": matched(os.path.join(TOP, "Cargo.toml"), r'^version = "(.*)"'),
        "commit": first_line(["git", "describe", "--always", "--dirty", "--exclude=*"]),
        "upstream": f"{upstream} {wheel}",
        "network": "TCP over the loopback, initiator and target on one machine",
    }


def throughput(options, columns):
    """Prints the table row by row, and returns the rows with every run."""
    rows = []
    heads = [f"{name} GB/s | {name} CPU-s/GB init / target" for name, _, _ in columns]
    ratios = [f"ours : {name}" for name, _, _ in columns[1:]]
    print("| op | block | batch | threads | " + " | ".join(heads + ratios) + " |")
    print("|---" * (4 + 2 * len(heads) + len(ratios)) + "|")
    for op, block, batch, threads in itertools.product(options.op, options.block, options.batch, options.threads):
        runs = {name: [] for name, _, _ in columns}
        for _ in range(options.runs):
            for name, kind, env in columns:
                runs[name].append(one_run(kind, env, op, block, batch, threads, options.duration))
        results = [medians(runs[name]) for name, _, _ in columns]
        cells = [rate_cell(result) for result in results] + [f"{results[0][0] / result[0]:.2f}" for result in results[1:]]
        label = f"{block // KIB} KiB" if block < KIB * KIB else f"{block // (KIB * KIB)} MiB"
        print(f"| {op} | {label} | {batch} | {threads} | " + " | ".join(cells) + " |", flush=True)
        keys = ("gb_per_s", "initiator_cpu_s_per_gb", "target_cpu_s_per_gb")
        kept = {name: [dict(zip(keys, run)) for run in runs[name]] for name, _, _ in columns}
        rows.append({"op": op, "block": block, "batch": batch, "threads": threads, "runs": kept})
    return rows


def latency(options):
    """4 KiB, batch 1, one thread. Upstream's program does not report latencies; its mean follows from its rate."""
    print("\n| latency, 4 KiB, batch 1, 1 thread | p50 µs | p99 µs |\n|---|---|---|")
    for op in options.op:
        found = []
        for _ in range(options.runs):
            lines = one_run("ours", {}, op, 4 * KIB, 1, 1, options.duration)[3]
            found.append({p: float(value) * MICROSECONDS[unit or "us"] for p, value, unit in re.findall(LATENCY, "\n".join(lines))})
        if not all({"50", "99"} <= set(run) for run in found):
            print(f"| ours, {op} | not in its report | |")
            continue
        p50, p99 = (number(statistics.median(run[p] for run in found)) for p in ("50", "99"))
        print(f"| ours, {op} | {p50} | {p99} |", flush=True)


def main():
    options = arguments()
    columns = [("ours", options.ours, {}), ("upstream", "upstream", {})]
    if options.pool_also:
        columns.append(("upstream, pool", "upstream", POOL))
    if options.one_shot_also:
        columns.append(("upstream, one-shot", "upstream", ONE_SHOT))
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, medians of {options.runs} runs of {options.duration} s\n")
    found = {"machine": machine(), "runs": options.runs, "seconds_per_run": options.duration, "columns": [name for name, _, _ in columns]}
    found["rows"] = throughput(options, columns)
    found["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
            file.write("\n")
    if not options.no_latency and options.ours == "ours":
        latency(options)


if __name__ == "__main__":
    main()
