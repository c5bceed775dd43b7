#!/usr/bin/env python3
"""Draws what `scripts/bench.py --json` measured as an SVG: a panel for each operation and shape, a group of bars for each size of block.

    plot.py RUNS.json PICTURE.svg

A bar is the median of its runs, the line through it goes from the slowest to the fastest one. Nothing but the file is read, so the same
file gives the same picture (tests/docs compares them).
"""

import html
import json
import statistics
import sys

STYLE = """<style>
  .card { fill: #fbfbf8; } text { font: 12px system-ui, sans-serif; fill: #1c2126; text-anchor: middle; }
  .title { font-size: 15px; font-weight: 600; } .note { font-size: 11px; fill: #47525b; text-anchor: start; } .left { text-anchor: start; }
  .axis { stroke: #8b959d; stroke-width: 1; } .grid { stroke: #dfe3e6; stroke-width: 1; } .range { stroke: #1c2126; stroke-width: 1.2; }
  .tick { text-anchor: end; fill: #47525b; } .ratio { font-weight: 600; } .value { font-size: 10px; }
  .bar0 { fill: #2d7d5a; } .bar1 { fill: #a9b4bd; } .bar2 { fill: #d2a24c; } .bar3 { fill: #7d8fc9; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #1b1f23; } text { fill: #eef1f3; } .note, .tick { fill: #c3ccd3; } .grid { stroke: #343b42; } .range { stroke: #eef1f3; }
    .bar0 { fill: #56b389; } .bar1 { fill: #6e7a84; }
  }
</style>"""
PANEL_WIDTH, PANEL_HEIGHT, GAP = 400, 230, 30
LEFT, TOP, BOTTOM = 50, 70, 40


def size(bytes_):
    return f"{bytes_ >> 20} MiB" if bytes_ >= 1 << 20 else f"{bytes_ >> 10} KiB"


def rates(row, column):
    return [run["gb_per_s"] for run in row["runs"][column]]


def ceiling(value):
    """The next round number: 1, 2 or 5 times a power of ten, in fifths of it."""
    step = next(factor * 10**power for power in range(-3, 6) for factor in (1, 2, 5) if factor * 10**power * 5 >= value)
    return step, step * 5


def text(x, y, words, kind=""):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(words)}</text>'


def line(kind, x1, y1, x2, y2):
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def panel(x, y, title, rows, columns):
    step, top = ceiling(max(max(rates(row, column)) for row in rows for column in columns))
    width, height = PANEL_WIDTH - LEFT, PANEL_HEIGHT - BOTTOM
    scaled = lambda value: y + height - value / top * height  # noqa: E731
    parts = [text(x + LEFT, y - 12, title, "title left")]
    for tick in range(6):
        parts += [line("grid", x + LEFT, scaled(tick * step), x + PANEL_WIDTH, scaled(tick * step))]
        parts += [text(x + LEFT - 6, scaled(tick * step) + 4, f"{tick * step:g}", "tick")]
    group = width / len(rows)
    bar = group * 0.76 / len(columns)
    for at, row in enumerate(rows):
        begin = x + LEFT + at * group + group * 0.12
        for number, column in enumerate(columns):
            found = rates(row, column)
            median, middle = statistics.median(found), begin + (number + 0.5) * bar
            parts.append(f'<rect class="bar{number}" x="{begin + number * bar:.1f}" y="{scaled(median):.1f}" width="{bar * 0.92:.1f}" height="{y + height - scaled(median):.1f}"/>')
            parts.append(line("range", middle, scaled(min(found)), middle, scaled(max(found))))
            parts.append(text(middle, scaled(max(found)) - 5, f"{median:#.2g}" if median < 10 else f"{median:.0f}", "value"))
        middle = begin + group * 0.38
        parts.append(text(middle, y + height + 16, size(row["block"])))
        # Neighbours in time: what slows the machine down slows both.
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates(row, columns[0]), rates(row, columns[1])))
        parts.append(text(middle, y + height + 32, f"{ratio:.3g}×", "ratio"))
    parts.append(line("axis", x + LEFT, y + height, x + PANEL_WIDTH, y + height))
    return parts


def notes(found):
    machine = found["machine"]
    # One runnable thread per side is the benchmark's own.
    busy = ": busy with other work too" if machine["load_before"] > machine["processors"] else ""
    kind = "virtual machine" if machine["virtual"] else "machine"
    first, second = found["columns"][:2]
    return [
        f"GB/s, medians of {found['runs']} alternating runs of {found['seconds_per_run']} s; lines from the slowest to the fastest run; × is the median ratio of {first} to "
        f"{second} in neighbouring runs",
        f"{machine['date']}: {machine['processors']} processors ({machine['processor']}), {machine['memory_gib']} GiB, {kind}, Linux {machine['kernel']}",
        f"{machine['network']}; load {machine['load_before']:g} before and {machine['load_after']:g} after{busy}",
        f"ours {machine['ours']} ({machine['commit']}), upstream {machine['upstream']}",
    ]


def draw(found):
    columns, panels = found["columns"], {}
    for row in found["rows"]:
        panels.setdefault((row["op"], row["batch"], row["threads"]), []).append(row)
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    width = across * (PANEL_WIDTH + GAP) + GAP
    height = TOP + down * (PANEL_HEIGHT + GAP) + 72
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="Throughput by size of block">']
    parts += [STYLE, f'<rect class="card" width="{width}" height="{height}" rx="10"/>']
    x = LEFT + GAP / 2
    for number, column in enumerate(columns):
        parts.append(f'<rect class="bar{number}" x="{x:.1f}" y="16" width="14" height="14"/>')
        parts.append(text(x + 20, 28, "this library" if column == "ours" else column, "left"))
        x += 130
    for at, ((op, batch, threads), rows) in enumerate(panels.items()):
        title = f"{op.upper()}, {batch} requests per batch, {threads} thread{'s' if threads > 1 else ''}"
        parts += panel(GAP / 2 + at % across * (PANEL_WIDTH + GAP), TOP + at // across * (PANEL_HEIGHT + GAP), title, rows, columns)
    for at, note in enumerate(notes(found)):
        parts.append(text(LEFT, height - 66 + at * 17, note, "note"))
    return "\n".join(parts + ["</svg>"]) + "\n"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        found = json.load(file)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(draw(found))


if __name__ == "__main__":
    main()
