#!/usr/bin/env python3
"""Pages as they are built: what a marker in docs/src stands for is made from headers and sources, so that it cannot go stale.

    page.py c-api.md     prints the whole page; tests/docs does this
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import api_c  # noqa: E402
import api_cpp  # noqa: E402
import api_python  # noqa: E402
from marks import read  # noqa: E402

# What makes the text that the marker stands for.
GENERATORS = {"c-api.md": api_c.render, "cpp-api.md": api_cpp.render, "python-api.md": api_python.render}
MARKER = "<!-- api -->\n"


def fill(name, text):
    if name not in GENERATORS:
        return text
    before, marker, after = text.partition(MARKER)
    if not marker:
        raise SystemExit(f"docs/src/{name} has no line {MARKER!r}")
    return before + GENERATORS[name]() + after


if __name__ == "__main__":
    sys.stdout.write(fill(sys.argv[1], read("docs", "src", sys.argv[1])))
