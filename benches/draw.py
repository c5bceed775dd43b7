"""Draws the curves of benches/run.py: rate and latency over the size of the blocks, ours, upstream and the machine's limit.

    draw.py RUNS.json PICTURE.svg

A point is the median of its runs. Both axes are logarithmic. Nothing but the file is read.
"""

import html
import json
import math
import statistics
import sys

STYLE = """<style>
  .card { fill: #fbfbf8; } text { font: 12px system-ui, sans-serif; fill: #1c2126; text-anchor: middle; }
  .title { font-size: 15px; font-weight: 600; text-anchor: start; } .left { text-anchor: start; } .tick { text-anchor: end; fill: #47525b; }
  .note { font-size: 11px; fill: #47525b; text-anchor: start; } .grid { stroke: #dfe3e6; stroke-width: 1; }
  .line { fill: none; stroke-width: 2.2; } .ours { stroke: #2d7d5a; } .upstream { stroke: #7d8fc9; } .limit { stroke: #a9b4bd; stroke-dasharray: 5 4; }
  .dot { stroke: none; } .dot.ours { fill: #2d7d5a; } .dot.upstream { fill: #7d8fc9; } .dot.limit { fill: #a9b4bd; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #1b1f23; } text { fill: #eef1f3; } .note, .tick { fill: #c3ccd3; } .grid { stroke: #343b42; }
    .ours { stroke: #56b389; } .dot.ours { fill: #56b389; }
  }
</style>"""
WIDTH, HEIGHT, LEFT, TOP, GAP = 380, 240, 56, 64, 40
NAMES = {"ours": "this library", "upstream": "Mooncake", "limit": "without a library"}


def size(bytes_):
    return f"{bytes_ >> 20} MiB" if bytes_ >= 1 << 20 else f"{bytes_ >> 10} KiB"


def text(x, y, words, kind=""):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(words)}</text>'


def points(rows, column, what):
    """(size of block, median) of each row that has this column."""
    runs = [(row["block"], [run[what] for run in row["runs"].get(column, [])]) for row in rows]
    return [(block, statistics.median(values)) for block, values in runs if values]


def panel(x, title, rows, what):
    curves = {column: points(rows, column, what) for column in NAMES}
    values = [value for curve in curves.values() for _, value in curve]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    blocks = sorted({row["block"] for row in rows})
    first, last = math.log2(blocks[0]), math.log2(blocks[-1])
    across = lambda block: x + LEFT + (math.log2(block) - first) / max(last - first, 1) * (WIDTH - LEFT)  # noqa: E731
    up = lambda value: TOP + HEIGHT - (math.log10(value) - low) / max(high - low, 1) * HEIGHT  # noqa: E731
    parts = [text(x + LEFT, TOP - 14, title, "title")]
    for power in range(low, high + 1):
        y = up(10**power)
        parts.append(f'<path class="grid" d="M{x + LEFT:.1f} {y:.1f}H{x + WIDTH:.1f}"/>')
        parts.append(text(x + LEFT - 6, y + 4, f"{10.0**power:g}", "tick"))
    parts += [text(across(block), TOP + HEIGHT + 18, size(block)) for block in blocks[::2]]
    for column, curve in curves.items():
        if curve:
            path = "L".join(f"{across(block):.1f} {up(value):.1f}" for block, value in curve)
            parts.append(f'<path class="line {column}" d="M{path}"/>')
            parts += [f'<circle class="dot {column}" cx="{across(block):.1f}" cy="{up(value):.1f}" r="3"/>' for block, value in curve]
    return parts


def draw(found):
    """The picture as text."""
    curves = [row for row in found["rows"] if row["group"] == "curves"]
    single, many = ([row for row in curves if (row["batch"] == 1) == alone] for alone in (True, False))
    width, height = 2 * WIDTH + GAP + 30, TOP + HEIGHT + 106
    machine = found["machine"]
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Rate and latency over TCP by size of block">']
    parts += [STYLE, f'<rect class="card" width="{width}" height="{height}" rx="8"/>']
    parts += panel(0, "WRITE over TCP, GB/s (batches of 16, from 4 MiB of 4)", many, "gb_per_s")
    parts += panel(WIDTH + GAP, "One WRITE at a time, mean in µs", single, "mean_us")
    for at, (column, name) in enumerate(NAMES.items()):
        x = LEFT + at * 150
        parts.append(f'<path class="line {column}" d="M{x} {TOP + HEIGHT + 42}h24"/>')
        parts.append(text(x + 30, TOP + HEIGHT + 46, name, "left"))
    about = "{processor}, {processors} processors, Linux {kernel}, {date}; {network}".format(**machine)
    parts.append(text(LEFT, TOP + HEIGHT + 70, about, "note"))
    parts.append(text(LEFT, TOP + HEIGHT + 88, f"medians; {machine['upstream']}; load {machine['load_before']} to {machine['load_after']}", "note"))
    return "\n".join(parts + ["</svg>"]) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as source:
        picture = draw(json.load(source))
    with open(sys.argv[2], "w", encoding="utf-8") as target:
        target.write(picture)
