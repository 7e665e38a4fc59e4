"""The pictures of the report of `tools/ablations.py`, SVG files without script: differences between rows, and lines.

Both show a mean as a point and the sample standard deviation to either side of it as a bar.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from sam_common.reporting.charts import number, round_ticks

_WIDTH = 900
_BLUE, _RED, _GREY, _GRID, _INK = "#0072b2", "#d55e00", "#767676", "#dddddd", "#222222"  # told apart by all eyes
_COLORS = (_BLUE, _RED, _GREY)


@dataclass(frozen=True)
class Difference:
    """By how much one row is better than another.

    Attributes:
        name: of the two.
        mean, spread: in points of the metric.
        resolved: whether the difference is greater than its spread; drawn as a full point.
    """

    name: str
    mean: float
    spread: float
    resolved: bool


Point = tuple[float, float, float]
"""x, mean, standard deviation."""


def draw_differences(groups: Mapping[str, Sequence[Difference]]) -> str:
    """One line for each difference below the name of its group, on one axis of points: right of 0 is as was claimed."""
    groups = {name: group for name, group in groups.items() if group}
    ends = [d.mean + side * d.spread for group in groups.values() for d in group for side in (-1, 1)]
    ticks = round_ticks(min(0.0, *ends), max(0.0, *ends), 8) if ends else [0.0, 1.0]
    left, right, step, top = 470, 110, 22, 34
    height = top + step * sum(len(group) + 1.5 for group in groups.values()) + 12

    def at(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_WIDTH - left - right)

    parts = [_line(at(t), top, at(t), height - 12, _INK if t == 0 else _GRID) for t in ticks]
    parts += [_text(at(t), top - 12, number(t), "middle") for t in ticks]
    y: float = top
    for name, group in groups.items():
        y += 1.1 * step
        parts.append(_text(12, y, name, "start", 'font-weight="bold"'))
        for d in group:
            y += step
            color = _GREY if not d.resolved else _BLUE if d.mean > 0 else _RED
            parts.append(_text(left - 12, y, d.name, "end"))
            parts.append(_line(at(d.mean - d.spread), y, at(d.mean + d.spread), y, color, 2))
            parts.append(_dot(at(d.mean), y, color, full=d.resolved))
            parts.append(_text(_WIDTH - 12, y, f"{d.mean:+.1f} ± {d.spread:.1f}", "end", f'style="fill:{color}"'))
        y += 0.4 * step
    return _page(height, parts, "differences between rows: blue holds, red does not, grey is not resolved")


def draw_lines(lines: Mapping[str, Sequence[Point]], x_label: str, y_label: str) -> str:
    """Lines through means, named above the plot; bars at the same x stand side by side."""
    points = [point for line in lines.values() for point in line]
    left, right, top, bottom, height = 60, 24, 34, 46, 340
    xs = round_ticks(min(x for x, _, _ in points), max(x for x, _, _ in points))
    ys = round_ticks(min(m - s for _, m, s in points), max(m + s for _, m, s in points))

    def across(x: float) -> float:
        return left + (x - xs[0]) / (xs[-1] - xs[0]) * (_WIDTH - left - right)

    def up(y: float) -> float:
        return height - bottom - (y - ys[0]) / (ys[-1] - ys[0]) * (height - top - bottom)

    parts = [_line(left, up(y), _WIDTH - right, up(y), _GRID) for y in ys]
    parts += [_text(left - 8, up(y), number(y), "end") for y in ys]
    parts += [_text(across(x), height - bottom + 16, number(x), "middle") for x in xs]
    parts.append(_text((left + _WIDTH - right) / 2, height - 10, x_label, "middle"))
    parts.append(_text(left, 12, y_label, "middle"))
    for index, (color, (name, line)) in enumerate(zip(cycle(_COLORS), lines.items(), strict=False)):
        placed = [(across(x) + 5 * (index - (len(lines) - 1) / 2), mean, spread) for x, mean, spread in line]
        corners = " ".join(f"{x:.1f},{up(mean):.1f}" for x, mean, _ in placed)
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{color}" stroke-width="2"/>')
        for x, mean, spread in placed:
            parts += [_line(x, up(mean - spread), x, up(mean + spread), color), _dot(x, up(mean), color)]
        parts.append(_text(left + 60 + 110 * index, 12, name, "start", f'style="fill:{color}" font-weight="bold"'))
    return _page(height, parts, f"{y_label} against {x_label}: {', '.join(lines)}")


def _line(x0: float, y0: float, x1: float, y1: float, color: str, width: float = 1) -> str:
    corners = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
    return f'<line {corners} stroke="{color}" stroke-width="{width}"/>'


def _dot(x: float, y: float, color: str, full: bool = True) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color if full else "white"}" stroke="{color}"/>'


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" dy="0.35em" text-anchor="{anchor}"'
    return f"<text {place} {more}>{html.escape(words)}</text>"


def _page(height: float, parts: Sequence[str], described: str) -> str:
    """White also on a dark page, where the file is an image and has no style to follow."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{html.escape(described)}" font-family="sans-serif" font-size="13" fill="{_INK}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
