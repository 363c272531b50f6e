# SPDX-License-Identifier: MIT
"""Two kinds of charts as SVG, written by hand. Each paints a ground of its own and follows prefers-color-scheme,
so that it can be read on a dark page and on a light one, whatever the page does.

    bars("fib", "ms", [("fib(32)", 32, rows), …])     # rows as run.py's summary() makes them
    lines("waves", "elapsed ÷ ideal", …)              # the same, with the cases' sizes along a logarithmic axis
"""

import math
from html import escape

LIGHT = {"ground": "#ffffff", "text": "#1f2328", "quiet": "#59636e", "line": "#d1d9e0", "ours": "#0969da",
         "theirs": "#afb8c1", "series": ["#0969da", "#bc4c00", "#1a7f37", "#8250df"]}
DARK = {"ground": "#0d1117", "text": "#f0f6fc", "quiet": "#9198a1", "line": "#3d444d", "ours": "#4493f8",
        "theirs": "#656c76", "series": ["#4493f8", "#f0883e", "#3fb950", "#ab7df8"]}


def rules(colours):
    """No CSS variables: not everything that shows SVG knows them."""
    lines = [
        f"text {{ fill: {colours['text']}; }}",
        f"text.quiet {{ fill: {colours['quiet']}; }}",
        f".ground {{ fill: {colours['ground']}; stroke: {colours['line']}; }}",
        f".ours {{ fill: {colours['ours']}; }}",
        f".theirs {{ fill: {colours['theirs']}; }}",
        f".spread, .target {{ stroke: {colours['text']}; }}",
        f".grid {{ stroke: {colours['line']}; }}",
    ]
    for index, colour in enumerate(colours["series"]):
        lines.append(f".line{index} {{ stroke: {colour}; }} .dot{index}, text.name{index} {{ fill: {colour}; }}")
    return "\n".join(lines)


STYLE = f"""
text {{ font: 12px system-ui, sans-serif; }}
.title {{ font-size: 15px; font-weight: 600; }}
.case {{ font-weight: 600; }}
.spread {{ stroke-width: 1.5; }}
.target {{ stroke-dasharray: 4 3; }}
polyline {{ fill: none; stroke-width: 2; }}
{rules(LIGHT)}
@media (prefers-color-scheme: dark) {{
{rules(DARK)}
}}
"""

WIDTH = 760
MARGIN = 16
LABELS = 210  # where the bars begin
FIGURES = 150  # what is kept for the figures behind them
ROW = 20


def number(value):
    if value == 0:
        return "0"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:,.{digits}f}"


def document(height, title, body):
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'role="img" aria-label="{escape(title)}">',
            f"<style>{STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def text(x, y, content, style="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(content)}</text>'


def bars(problem, unit, cases):
    """A group of bars a case, the shortest first, with the quartiles as a line; each group has a scale of its own. A
    bar that is more than 8 times the group's median is cut, and its figure says how long it is."""
    body = [text(MARGIN, 28, problem, "title"), text(WIDTH - MARGIN, 28, f"{unit}, less is better", "quiet", "end")]
    y = 44
    room = WIDTH - LABELS - FIGURES - MARGIN
    for name, _, rows in cases:
        y += 22
        body.append(text(MARGIN, y, name, "case"))
        y += 8
        if not rows:
            body.append(text(LABELS, y + 10, "no figures", "quiet"))
            y += ROW
            continue
        middle = sorted(row["median"] for row in rows)[len(rows) // 2]
        longest = min(max(row["high"] for row in rows), 8 * middle) or 1
        scale = room / longest
        for row in rows:
            length = min(row["median"], longest) * scale
            kind = "ours" if row["contender"].startswith("tokengate") else "theirs"
            body.append(text(LABELS - 8, y + 13, row["contender"], "", "end"))
            width = f"{max(length, 1):.1f}"
            body.append(f'<rect class="{kind}" x="{LABELS}" y="{y + 3}" width="{width}" height="13" rx="2"/>')
            if row["median"] <= longest and row["high"] > row["low"]:
                left, right = (LABELS + min(row[end], longest) * scale for end in ("low", "high"))
                body.append(f'<line class="spread" x1="{left:.1f}" x2="{right:.1f}" y1="{y + 9.5}" y2="{y + 9.5}"/>')
            cut = "→ " if row["median"] > longest else ""
            end = LABELS + max(length, min(row["high"], longest) * scale)
            body.append(text(end + 8, y + 13, f"{cut}{number(row['median'])}  ({row['ratio']:.2f} ×)", "value"))
            y += ROW
    return document(y + MARGIN, problem, body)


def lines(problem, unit, cases):
    """A line a contender over the cases' sizes, both axes logarithmic, with the quartiles as vertical lines."""
    left, right, top, bottom = 64, WIDTH - MARGIN - 150, 52, 340
    points = {}
    for _, size, rows in cases:
        for row in rows:
            points.setdefault(row["contender"], []).append((size, row["low"], row["median"], row["high"]))
    body = [text(MARGIN, 28, problem, "title"), text(WIDTH - MARGIN, 28, f"{unit}, less is better", "quiet", "end")]
    if not points:
        return document(bottom + 50, problem, body + [text(left, top + 20, "no figures", "quiet")])
    sizes = sorted({point[0] for series in points.values() for point in series})
    least = min(point[1] for series in points.values() for point in series)
    most = max(point[3] for series in points.values() for point in series)
    low, high = math.log10(least) - 0.05, math.log10(most) + 0.05

    def x_of(size):
        span = math.log2(sizes[-1] / sizes[0]) or 1
        return left + (right - left) * math.log2(size / sizes[0]) / span

    def y_of(value):
        return bottom - (bottom - top) * (math.log10(value) - low) / (high - low)

    for tick in ticks(10**low, 10**high):
        kind = "target" if tick == 1 else "grid"
        body.append(f'<line class="{kind}" x1="{left}" x2="{right}" y1="{y_of(tick):.1f}" y2="{y_of(tick):.1f}"/>')
        body.append(text(left - 8, y_of(tick) + 4, f"{tick:g}", "quiet", "end"))
    for index, size in enumerate(sizes):
        if index % 2 == 0:
            body.append(text(x_of(size), bottom + 20, f"{size:,}", "quiet", "middle"))
    ends = sorted((y_of(series[-1][2]), name) for name, series in points.items())
    labels = {}
    for at, name in ends:
        labels[name] = max([at + 4] + [taken + 15 for taken in labels.values()])
    for index, (name, series) in enumerate(points.items()):
        kind = index % len(LIGHT["series"])
        path = " ".join(f"{x_of(size):.1f},{y_of(median):.1f}" for size, _, median, _ in series)
        body.append(f'<polyline class="line{kind}" points="{path}"/>')
        for size, q1, median, q3 in series:
            body.append(f'<line class="line{kind}" x1="{x_of(size):.1f}" x2="{x_of(size):.1f}" y1="{y_of(q1):.1f}" '
                        f'y2="{y_of(q3):.1f}"/>')
            body.append(f'<circle class="dot{kind}" cx="{x_of(size):.1f}" cy="{y_of(median):.1f}" r="3"/>')
        body.append(text(right + 10, labels[name], name, f"name{kind}"))
    return document(bottom + 36, problem, body)


def ticks(least, most):
    """1, 2, 5 of each decade, or finer where the axis is short."""
    steps = (1, 2, 5) if most / least > 3 else (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    found = []
    for exponent in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1):
        found += [step * 10**exponent for step in steps if least <= step * 10**exponent <= most]
    return found
