#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""plot.py PROGRAM DIRECTORY [--csv FILE] [--tables]: runs the simulation (or reads its figures from FILE) and writes
simulation-*.svg and simulation.csv into DIRECTORY; --tables prints tables for docs/simulation.md instead. Python's standard library only."""

import csv
import io
import math
import pathlib
import subprocess
import sys

SCHEDULERS = [
    ("ideal", "ideal central queue", "#888888", "5 4"),
    ("locked", "central queue, one lock", "#b8860b", ""),
    ("stealing", "stealing", "#2e8b57", ""),
    ("round_robin", "static round-robin", "#8a5fbf", ""),
    ("before", "TokenGate before", "#d9730d", ""),
    ("hungry_in_turn", "TokenGate, hungry cores in turn", "#e78ab0", "2 3"),
    ("tokengate", "TokenGate", "#c2185b", ""),
]
TEXT = 'font-family="sans-serif" font-size="12" fill="#222"'


def escaped(text):
    return str(text).replace("&", "&amp;").replace("<", "&lt;")


def short(value, unit):
    if unit == "us":
        for limit, factor, name in ((1e3, 1, "µs"), (1e6, 1e3, "ms"), (math.inf, 1e6, "s")):
            if value < limit:
                return f"{value / factor:g} {name}"
    if unit == "ns":
        return f"{value:g} ns" if value < 1e3 else short(value / 1e3, "us")
    if unit == "%":
        return f"{value * 100:g} %"
    return f"{value:,g}"


class panel:
    """Lines over a common x axis. x is by place (given values at equal distances), y logarithmic or from 0."""

    def __init__(self, title, x_label, y_label, xs, x_unit="", y_unit="", log=True, least=None, top=None):
        self.title, self.x_label, self.y_label, self.xs = title, x_label, y_label, list(xs)
        self.x_unit, self.y_unit, self.log, self.least, self.top = x_unit, y_unit, log, least, top
        self.lines = []

    def line(self, colour, dash, ys):
        self.lines.append((colour, dash, ys))

    def svg(self, left, width, height):
        x0, y0, x1, y1 = left + 62, 44, left + width - 14, height - 100
        values = [y for _, _, ys in self.lines for y in ys if y is not None]
        if self.log:
            low = math.floor(math.log10(max(min(values), self.least or 1e-3)))
            high = math.ceil(math.log10(max(values)))
            high = max(high, low + 1)
            marks = [10.0 ** e for e in range(low, high + 1)]

            def y_of(y):
                return y1 - (math.log10(max(y, 10.0 ** low)) - low) / (high - low) * (y1 - y0)
        else:
            top = self.top or max(values) * 1.08
            marks = [top * i / 5 for i in range(6)]

            def y_of(y):
                return y1 - min(y, top) / top * (y1 - y0)

        def x_of(i):
            return x0 + 12 + i * (x1 - x0 - 24) / max(len(self.xs) - 1, 1)

        out = [f'<text x="{(x0 + x1) / 2}" y="28" text-anchor="middle" font-weight="bold" {TEXT}>{escaped(self.title)}</text>']
        for mark in marks:
            y = y_of(mark)
            out.append(f'<line x1="{x0}" x2="{x1}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            out.append(f'<text x="{x0 - 5}" y="{y + 4:.1f}" text-anchor="end" {TEXT}>{short(round(mark, 6), self.y_unit)}</text>')
        for i, x in enumerate(self.xs):
            out.append(f'<text x="{x_of(i):.1f}" y="{y1 + 17}" text-anchor="middle" {TEXT}>{short(x, self.x_unit)}</text>')
        out.append(f'<line x1="{x0}" x2="{x1}" y1="{y1}" y2="{y1}" stroke="#444"/>')
        out.append(f'<line x1="{x0}" x2="{x0}" y1="{y0}" y2="{y1}" stroke="#444"/>')
        out.append(f'<text x="{(x0 + x1) / 2}" y="{y1 + 36}" text-anchor="middle" {TEXT}>{escaped(self.x_label)}</text>')
        out.append(f'<text transform="translate({left + 13},{(y0 + y1) / 2}) rotate(-90)" text-anchor="middle" {TEXT}>'
                   f'{escaped(self.y_label)}</text>')
        for colour, dash, ys in self.lines:
            points = [(x_of(i), y_of(y)) for i, y in enumerate(ys) if y is not None]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
            out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        return out


def write_panels(path, panels, width=470, height=400):
    whole = width * len(panels)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {height}" width="{whole}" height="{height}">',
           f'<rect width="{whole}" height="{height}" fill="white"/>']
    for i, each in enumerate(panels):
        out += each.svg(i * width, width, height)
    step = whole / 3
    for i, (_, label, colour, dash) in enumerate(SCHEDULERS):
        x, y = 40 + i % 3 * step, height - 38 + i // 3 * 16
        out.append(f'<line x1="{x}" x2="{x + 26}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>')
        out.append(f'<text x="{x + 32}" y="{y}" {TEXT}>{label}</text>')
    path.write_text("\n".join(out + ["</svg>\n"]), encoding="utf-8")


def write_bars(path, title, groups, bound):
    """Horizontal bars, logarithmic; groups: [(name, [(label, µs)])]; a line at `bound`."""
    rows = sum(len(bars) + 1.6 for _, bars in groups)
    height, width, x0, x1 = int(rows * 20 + 80), 940, 270, 860
    low, high = 0, math.ceil(math.log10(max(v for _, bars in groups for _, v in bars)))

    def x_of(value):
        return x0 + (math.log10(max(value, 1)) - low) / (high - low) * (x1 - x0)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{width / 2}" y="26" text-anchor="middle" font-weight="bold" {TEXT}>{escaped(title)}</text>']
    for e in range(low, high + 1):
        x = x_of(10.0 ** e)
        out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="40" y2="{height - 30}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{height - 12}" text-anchor="middle" {TEXT}>{short(10.0 ** e, "us")}</text>')
    y = 44.0
    for name, bars in groups:
        y += 18
        out.append(f'<text x="{x0 - 6}" y="{y}" text-anchor="end" font-weight="bold" {TEXT}>{escaped(name)}</text>')
        y += 8
        for label, value in bars:
            colour = "#c2185b" if label == "all" else "#d9730d" if label == "before" else "#7a99b8"
            out.append(f'<rect x="{x0}" y="{y:.1f}" width="{max(x_of(value) - x0, 1):.1f}" height="14" fill="{colour}"/>')
            out.append(f'<text x="{x0 - 6}" y="{y + 12:.1f}" text-anchor="end" {TEXT}>{escaped(label)}</text>')
            out.append(f'<text x="{x_of(value) + 5:.1f}" y="{y + 12:.1f}" {TEXT}>{short(float(f"{value:.3g}"), "us")}</text>')
            y += 20
    x = x_of(bound)
    out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="40" y2="{height - 30}" stroke="#c00" stroke-dasharray="4 3"/>')
    path.write_text("\n".join(out + ["</svg>\n"]), encoding="utf-8")


class figures:
    def __init__(self, text):
        self.rows = list(csv.DictReader(io.StringIO(text)))
        for row in self.rows:
            for key in row:
                if key not in ("study", "workload", "scheduler"):
                    row[key] = float(row[key])

    def value(self, column, **where):
        for row in self.rows:
            if all(row[k] == v for k, v in where.items()):
                return row[column]
        return None

    def draw(self, into, column, key, **where):
        for name, _, colour, dash in SCHEDULERS:
            into.line(colour, dash, [self.value(column, scheduler=name, **{key: x}, **where) for x in into.xs])
        return into


CORES = [4, 16, 64, 256]


def plots(f, to):
    loads = [0.5, 0.8, 0.95]
    write_panels(to / "simulation-open-loop.svg", [
        f.draw(panel(title, "offered load", "99 % wait less", loads, "%", "us"), "p99_us", "load", study="open_loop", workload=w, cores=16)
        for w, title in (("exponential", "exponential, mean 10 µs, 16 cores"), ("pareto", "Pareto 1.2, 2 µs … 100 ms, 16 cores"),
                         ("bimodal", "20 µs, 1 % 1 ms, 0.1 % 300 ms, 16 cores"))])
    write_panels(to / "simulation-waves.svg", [
        f.draw(panel(f"waves of 10 µs tokens, {n} cores asleep before", "tokens in the wave", "useful work ÷ (cores × time)",
                     [4 ** e for e in range(1, 9)], log=False, top=1.0), "efficiency", "parameter", study="waves", cores=n)
        for n in (4, 16, 256)])
    write_panels(to / "simulation-fan-out.svg", [
        f.draw(panel(title, "cores", label, CORES, "", "us"), column, "cores", study="fan_out", workload=w)
        for w, column, label, title in (
            ("fan_out", "p50_us", "half of the children wait less", "16–70 children made at once, then 200 ms"),
            ("fan_out", "max_us", "the longest wait", "16–70 children made at once, then 200 ms"),
            ("fan_out_slow", "max_us", "the longest wait", "a child every 300 µs, then 200 ms"))])
    runs = [100, 300, 1e3, 3e3, 1e4, 3e4, 1e5]
    write_panels(to / "simulation-grain.svg", [
        f.draw(panel(f"saturated, {n} cores", "run time of a token", "useful work ÷ (cores × time)", runs, "ns", log=False, top=1.0),
               "efficiency", "parameter", study="grain", cores=n) for n in (4, 64, 256)])
    moved = [0, 300, 1000, 3000, 10000]
    write_panels(to / "simulation-chains.svg", [
        f.draw(panel("4 chains a core, alike, 64 cores", "a step costs so much more elsewhere", "useful work ÷ (cores × time)", moved, "ns",
                     log=False, top=1.0), "efficiency", "parameter", study="chains", workload="chains", cores=64),
        f.draw(panel("4 chains a core, Pareto lengths, 1 µs", "cores", "useful work ÷ (cores × time)", CORES, log=False, top=0.8), "efficiency",
               "cores", study="chains", workload="chains_uneven")])
    groups = []
    for workload, load, name, cores in (("bimodal", 0.5, "bimodal, 50 %, 16 cores", 16), ("behind_long", 0.6, "1 in 10 is 1 ms, 60 %, 16 cores", 16),
                                        ("fan_out", 0, "fan-out at once, 16 cores", 16), ("fan_out_slow", 0, "fan-out slowly, 16 cores", 16)):
        rows = [r for r in f.rows if r["study"] == "parts" and r["workload"] == workload and r["load"] == load and r["cores"] == cores]
        groups.append((name, [(r["scheduler"], r["behind_us"]) for r in rows]))
    write_bars(to / "simulation-parts.svg", "the longest that an unanchored token waits while another core idles (red: the bound)", groups, 1000)


def table(f, column, columns, rows):
    """Rows and columns of conditions; a cell is a figure."""
    print("| | " + " | ".join(name for name, _ in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, where in rows:
        cells = [f.value(column, **where, **more) for _, more in columns]
        print(f"| {name} | " + " | ".join("–" if c is None else f"{c:.3g}" for c in cells) + " |")
    print()


def tables(f):
    columns = [(label, {"scheduler": name}) for name, label, _, _ in SCHEDULERS]
    for column in ("p50_us", "p99_us", "p999_us", "efficiency", "imbalance", "messages", "wakes", "moved"):
        print(f"**open loop: {column}**\n")
        table(f, column, columns, [(f"{w} {load:g}, {n} cores", {"study": "open_loop", "workload": w, "load": load, "cores": n})
                                   for w in ("constant", "exponential", "mixed", "pareto", "bimodal") for load in (0.5, 0.8, 0.95) for n in CORES])
    for study, column in (("waves", "efficiency"), ("waves", "messages"), ("grain", "efficiency")):
        print(f"**{study}: {column}**\n")
        xs = [4 ** e for e in range(1, 9)] if study == "waves" else [100, 300, 1e3, 3e3, 1e4, 3e4, 1e5]
        table(f, column, columns, [(f"{x:g}, {n} cores", {"study": study, "parameter": x, "cores": n}) for n in CORES for x in xs])
    for study, workloads, keys in (("fan_out", ("fan_out", "fan_out_slow"), [0.0]), ("small_children", ("small_children",), [0.5, 0.9])):
        for column in ("p50_us", "max_us", "efficiency", "messages"):
            print(f"**{study}: {column}**\n")
            table(f, column, columns, [(f"{w} {k:g}, {n} cores", {"study": study, "workload": w, "load": k, "cores": n})
                                       for w in workloads for k in keys for n in CORES])
    print("**chains: efficiency**\n")
    table(f, "efficiency", columns, [(f"moved {m} ns, {n} cores", {"study": "chains", "workload": "chains", "parameter": m, "cores": n})
                                     for n in CORES for m in (0, 300, 1000, 3000, 10000)] +
          [(f"uneven, {n} cores", {"study": "chains", "workload": "chains_uneven", "cores": n}) for n in CORES])
    names = list(dict.fromkeys(r["scheduler"] for r in f.rows if r["study"] == "parts"))
    for column in ("p99_us", "max_us", "behind_us", "messages", "wakes", "moved", "barriers", "efficiency"):
        print(f"**parts: {column}**\n")
        table(f, column, [(n, {"scheduler": n}) for n in names],
              [(f"{w} {load:g}, {n} cores", {"study": "parts", "workload": w, "load": load, "cores": n})
               for w, load in (("bimodal", 0.5), ("bimodal", 0.8), ("behind_long", 0.6), ("fan_out", 0), ("fan_out_slow", 0), ("constant", 0.8),
                               ("waves", 0)) for n in CORES])


def main():
    program, to = sys.argv[1], pathlib.Path(sys.argv[2])
    if "--csv" in sys.argv:
        text = pathlib.Path(sys.argv[sys.argv.index("--csv") + 1]).read_text(encoding="utf-8")
    else:
        text = subprocess.run([program], stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout
    found = figures(text)
    if "--tables" in sys.argv:
        tables(found)
        return
    to.mkdir(parents=True, exist_ok=True)
    (to / "simulation.csv").write_text(text, encoding="utf-8")
    plots(found, to)


if __name__ == "__main__":
    main()
