#!/usr/bin/env python3
"""Instructions per request of the parts of a transfer, compared with the recorded ones. Run by `make bench-instr`.

benches/instructions.c does the parts under callgrind. What counts, and what is recorded, are the instructions that the library
itself executes, and how often it allocates: the C library picks its copying functions by processor, and the simulated NIC is not
ours. Both are shown beside it. Each part is measured 25 times and the median counts, because another thread may take some of the
work: the same library gives the same figures. A part that needs over 5 % more than recorded fails the run; UPDATE=1 records anew,
DETAILS=1 shows where the instructions are.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RECORDED = os.path.join(TOP, "benches", "results", "instructions.json")
LIBRARY = os.environ.get("TE_LIB") or os.path.join(TOP, "target", "release", "libtransfer_engine.so")
SIMVERBS = os.path.join(TOP, "target", "simverbs")
TOLERANCE = 0.05
# Below this many instructions, one more says nothing.
SLACK = 4
NICS = {"SIMVERBS_DEVICES": "sim0", "SIMVERBS_GBPS": "inf", "SIMVERBS_NOCOPY": "1", "SIMVERBS_QUIET": "1"}
AT_ONCE = {**NICS, "SIMVERBS_LAT_US": "0", "SIMVERBS_OP_NS": "0"}
HELD = {**NICS, "SIMVERBS_LAT_US": "500000", "SIMVERBS_OP_NS": "1"}
CASES = {"rdma": ("RDMA", AT_ONCE), "held": ("RDMA", HELD), "tcp": ("TCP", {}), "local": ("own segment", {})}


def build(folder):
    subprocess.run(["make", "-s", "-C", os.path.join(TOP, "tests", "simverbs"), f"OUT={SIMVERBS}"], check=True)
    program = os.path.join(folder, "instructions")
    where = os.path.dirname(os.path.abspath(LIBRARY))
    source = os.path.join(TOP, "benches", "instructions.c")
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{TOP}/include"]
    subprocess.run(["cc", *flags, source, "-o", program, f"-L{where}", f"-Wl,-rpath,{where}", "-ltransfer_engine"], check=True)
    return program


def counted(lines):
    """For each dump of a callgrind file: (name, {object: instructions}, {(object, function): instructions})."""
    name, objects, functions, skip = None, {}, {}, False
    place, function = "", ""
    for line in lines:
        if line.startswith("part:") and name:
            yield name, objects, functions
            name, objects, functions = None, {}, {}
        elif match := re.match(r"desc: Trigger: Client Request: (.*)", line):
            name = match.group(1)
        elif line.startswith("ob="):
            place = os.path.basename(line[3:].strip())
        elif line.startswith("fn="):
            function = line[3:].strip()
        elif line.startswith("calls="):
            skip = True  # the next line is what the call cost, which the called function has itself
        elif match := re.match(r"[+*\d-]\S* (\d+)$", line):
            if not skip:
                cost = int(match.group(1))
                objects[place] = objects.get(place, 0) + cost
                functions[place, function] = functions.get((place, function), 0) + cost
            skip = False
    if name:
        yield name, objects, functions


def module(function):
    """`transport::rdma::queue` of a function there; what is inlined counts for the function that it is in."""
    found = re.findall(r"transfer_engine::([a-z_]+(?:::[a-z_]+)*)::", function)
    return found[0] if found else "exported functions, standard library, crates"


def measure(program, case, folder):
    """{part: its figures} of one run of the program."""
    way, env = CASES[case]
    out = os.path.join(folder, case)
    # The program's own name for the registry: runs beside this one have theirs.
    environment = {**os.environ, "LD_LIBRARY_PATH": SIMVERBS, "SIMVERBS_SHM": f"instructions-{os.getpid()}", "MC_LOG_LEVEL": "ERROR", **env}
    command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--combine-dumps=yes", "--compress-strings=no"]
    command += ["--compress-pos=no", f"--callgrind-out-file={out}", program, case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"instructions {case}: exit status {done.returncode}\n{done.stderr}")
    rounds = {}
    with open(out, encoding="utf-8") as file:
        for name, objects, functions in counted(file):
            part, units, allocations = name.split("|")
            rounds.setdefault(part, []).append((int(units), int(allocations), objects, functions))
    return {f"{way}: {part}": medians(found, part) for part, found in rounds.items()}


def typical_of(own, part):
    """The median. The thread of the NIC retires now and then before the caller does; what the caller pays is meant."""
    return sorted(own)[len(own) * 3 // 4] if part.startswith("retire") else statistics.median_low(own)


def medians(rounds, part):
    library = os.path.basename(LIBRARY)
    units = rounds[0][0]
    own = [objects.get(library, 0) for _, _, objects, _ in rounds]
    middle = typical_of(own, part)
    typical = next(one for one in rounds if one[2].get(library, 0) == middle)
    modules = {}
    for (place, function), cost in typical[3].items():
        if place == library:
            modules[module(function)] = modules.get(module(function), 0) + cost
    nic = typical[2].get("libibverbs.so.1", 0)
    return {
        "units": units,
        "instructions": round(middle / units, 1),
        "allocations": round(statistics.median_low([one[1] for one in rounds]) / units, 3),
        "nic": round(nic / units, 1),
        "c_library": round(sum(cost for place, cost in typical[2].items() if place.startswith(("libc.", "ld-", "libm."))) / units, 1),
        "modules": {name: round(cost / units, 1) for name, cost in sorted(modules.items(), key=lambda pair: -pair[1])},
    }


def compiler():
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def grew(old, new):
    """What of a part is over 5 % above what was recorded."""
    most = old["instructions"] * (1 + TOLERANCE) + SLACK
    said = ["instructions"] if new["instructions"] > most else []
    return said + (["allocations"] if new["allocations"] > old["allocations"] * (1 + TOLERANCE) else [])


def table(old, new):
    print("| per request | recorded | now | | allocations | C library | simulated NIC |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for part, now in new.items():
        before = old.get(part)
        change = f"{(now['instructions'] / before['instructions'] - 1) * 100:+.1f} %" if before and before["instructions"] else "new"
        recorded = f"{before['instructions']:g}" if before else ""
        allocations = f"{now['allocations']:g}" if not before or before["allocations"] == now["allocations"] else f"{before['allocations']:g} → {now['allocations']:g}"
        print(f"| {part} | {recorded} | {now['instructions']:g} | {change} | {allocations} | {now['c_library']:g} | {now['nic']:g} |")


def details(new):
    for part, now in new.items():
        print(f"\n{part}: {now['instructions']:g}")
        for name, cost in now["modules"].items():
            print(f"  {cost:8g}  {name}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        new = {}
        for case in CASES:
            new.update(measure(program, case, folder))
    recorded = {"compiler": "", "parts": {}}
    if os.path.exists(RECORDED):
        with open(RECORDED, encoding="utf-8") as file:
            recorded = json.load(file)
    old = recorded["parts"]
    table(old, new)
    if os.environ.get("DETAILS"):
        details(new)
    if os.environ.get("UPDATE"):
        with open(RECORDED, "w", encoding="utf-8") as file:
            json.dump({"compiler": compiler(), "parts": new}, file, indent=1, ensure_ascii=False)
            file.write("\n")
        print(f"\nrecorded in {os.path.relpath(RECORDED, TOP)}")
        return 0
    failures = [f"{part}: more {what}" for part in old if part in new for what in grew(old[part], new[part])]
    failures += [f"{part}: not measured any more" for part in old if part not in new]
    failures += [f"{part}: not recorded yet" for part in new if part not in old]
    for failure in failures:
        print(f"FAIL  {failure}")
    if failures and recorded["compiler"] != compiler():
        print(f"(recorded with {recorded['compiler']}, this is {compiler()}: another compiler makes other code)")
    print("" if not failures else "UPDATE=1 records these figures, if they are meant")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
