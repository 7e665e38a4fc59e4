"""Line charts as inline SVG, for reports that need no script and no drawing library.

Colours come from the classes `line-0` to `line-5` of the page's style, so that a chart follows a dark page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]

NUM_COLORS = 6
_WIDTH, _HEIGHT = 860, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 42  # margins around the plot
_MAX_POINTS = 400  # of one line: more cannot be seen


@dataclass(frozen=True)
class Curve:
    """Lines over a common x axis, y from 0 up: name -> points (x, y). Points that are not finite are left out."""

    caption: str
    x_label: str
    lines: Mapping[str, Sequence[Point]]


def line_chart(curve: Curve) -> str:
    """The curve as an HTML figure: each line faint through all its points, and its running mean over it."""
    lines = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in curve.lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    xs, ys = np.array([point for points in lines.values() for point in points], np.float64).T
    # The highest hundredth of the values, those of the first iterations, must not flatten the rest.
    x_ticks, y_ticks = round_ticks(xs.min(), xs.max()), round_ticks(0.0, float(np.quantile(ys, 0.99)))

    def place(point: Point) -> str:
        across = (point[0] - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = min(1.0, (point[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]))
        x = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
        return f"{x:.1f},{_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    drawn, legend, described = _axes(x_ticks, y_ticks, place, curve.x_label), [], []
    for index, (name, points) in enumerate(lines.items()):
        smooth, color = running_mean(points), f"line-{index % NUM_COLORS}"
        for path, opacity in ((points, 0.25), (smooth, 1)):
            corners = " ".join(map(place, path[:: math.ceil(len(path) / _MAX_POINTS)]))
            drawn.append(f'<polyline class="line {color}" opacity="{opacity}" points="{corners}"/>')
        name = html.escape(name)
        legend.append(f'<span><i class="swatch {color}"></i>{name} <b>{number(smooth[-1][1])}</b></span>')
        described.append(f"{name} goes from {number(smooth[0][1])} to {number(smooth[-1][1])}")
    return (
        f'<figure class="chart"><figcaption>{html.escape(curve.caption)}</figcaption>'
        f'<div class="legend">{"".join(legend)}</div><div class="scroll">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{"; ".join(described)}">'
        f"{''.join(drawn)}</svg></div></figure>"
    )


def running_mean(points: Sequence[Point], share: float = 0.04) -> list[Point]:
    """Each y averaged over a window of `share` of the points, which stays centred and so narrows at the ends."""
    half = int(len(points) * share / 2)
    sums = np.concatenate([[0.0], np.cumsum([y for _, y in points])])
    smooth = []
    for index, (x, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        smooth.append((x, float(sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)))
    return smooth


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` values that span low..high, multiples of 1, 2 or 5 times a power of ten."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [index * step for index in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def number(value: float) -> str:
    """Three digits, whole numbers whole: 0, 0.00123, 3.4, 57, 3,000."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _axes(x_ticks: Sequence[float], y_ticks: Sequence[float], place: Callable[[Point], str], x_label: str) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = place((x_ticks[0], tick)).partition(",")[2]
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y}" dy="0.32em" text-anchor="end">{number(tick)}</text>')
    for tick in x_ticks:
        x = place((tick, y_ticks[0])).partition(",")[0]
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{number(tick)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:g}" y="{_HEIGHT - 4}" text-anchor="middle">{html.escape(x_label)}</text>')
    return parts
