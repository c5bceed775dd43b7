#!/usr/bin/env python3
"""Prints the ten slowest tests of a run.

    slowest.py junit REPORT.xml      of cargo-nextest
    slowest.py cargo OUTPUT.txt      of plain cargo test, which has times per test binary only
"""

import re
import sys
import xml.etree.ElementTree

COUNT = 10


def from_junit(path):
    tests = []
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        tests.append((float(case.get("time", 0)), f"{case.get('classname')} {case.get('name')}"))
    return tests


def from_cargo(path):
    tests, running = [], "?"
    for line in open(path, errors="replace"):
        if start := re.search(r"^\s+(?:Running|Doc-tests) (.+?)(?: \(.*)?$", line):
            running = start[1]
        elif end := re.search(r"^test result: .* (\d+) passed; (\d+) failed; .* finished in ([\d.]+)s", line):
            tests.append((float(end[3]), f"{running} (all its tests)"))
    return tests


tests = {"junit": from_junit, "cargo": from_cargo}[sys.argv[1]](sys.argv[2])
print(f"The slowest {min(COUNT, len(tests))} of {len(tests)}:")
for seconds, name in sorted(tests, reverse=True)[:COUNT]:
    print(f"{seconds:8.1f} s  {name}")
