"""Line charts as SVG, drawn by matplotlib. Their colours are variables of the page's style, so they follow a dark page.

matplotlib is imported where it draws: that takes half a second, and most programs draw nothing.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Point = tuple[float, float]

_WIDTH, _HEIGHT = 860, 320
_MAX_POINTS = 400  # of one line: more cannot be seen
_COLORS = {  # as they are drawn -> the variable of page.css that replaces them
    "#2f5fd0": "--c0", "#c4480f": "--c1", "#157f4b": "--c2", "#8b3fc1": "--c3", "#b0256b": "--c4", "#5f6b00": "--c5",
    "#5a6372": "--quiet", "#dfe3ea": "--rule",
}  # fmt: skip
*_LINES, _QUIET, _RULE = _COLORS


@dataclass(frozen=True)
class Curve:
    """Lines over a common x axis, y from 0 up: name -> points (x, y). Points that are not finite are left out."""

    caption: str
    x_label: str
    lines: Mapping[str, Sequence[Point]]


class ChartLine(NamedTuple):
    """What the legend says of a line: its colour in CSS, and where its running mean starts and ends."""

    name: str
    color: str
    first: str
    last: str


class Chart(NamedTuple):
    """A drawn curve: an `<svg>` element for an HTML page, and its legend."""

    svg: str
    legend: list[ChartLine]


def line_chart(curve: Curve) -> Chart | None:
    """Draws each line faintly through all its points, and its running mean over it; None where there are no points."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    lines = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in curve.lines.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    figure = Figure((_WIDTH / 72, _HEIGHT / 72), layout="constrained", frameon=False)
    axes = figure.add_subplot(frameon=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(lambda value, _: number(value))
    # The highest hundredth of the values, those of the first iterations, must not flatten the rest.
    high = float(np.quantile([y for points in lines.values() for _, y in points], 0.99))
    top = axes.yaxis.get_major_locator().tick_values(0, high)[-1]
    legend = []
    for index, (name, points) in enumerate(lines.items()):
        x, y = np.array(points, np.float64).T
        smooth, step, color = running_mean(y), math.ceil(len(points) / _MAX_POINTS), _LINES[index % len(_LINES)]
        for heights, opacity in ((y, 0.25), (smooth, 1.0)):
            shown = np.minimum(heights, top)[::step]
            axes.plot(x[::step], shown, color=color, alpha=opacity, linewidth=2, clip_on=False)
        legend.append(ChartLine(name, f"var({_COLORS[color]})", number(smooth[0]), number(smooth[-1])))
    axes.set_ylim(0, top)
    axes.margins(x=0)
    axes.set_xlabel(curve.x_label, color=_QUIET, size=12)
    axes.grid(axis="y", color=_RULE, linewidth=1, clip_on=False)
    axes.tick_params(left=False, bottom=False, labelcolor=_QUIET, labelsize=12)
    svg = re.sub("|".join(_COLORS), lambda found: f"var({_COLORS[found[0]]})", svg_file(figure))
    # The header is for a file, and other charts of the page have the same ids.
    body = re.sub(r' id="[^"]*"', "", svg[svg.index("<g") :])
    return Chart(f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}">{body}', legend)


def svg_file(figure: Figure) -> str:
    """The figure as an SVG file with its words as text; the same figure gives the same file, whenever it is drawn."""
    from matplotlib import rc_context

    file, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "detectron2-sam", "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(file, format="svg", metadata=nothing)
    return file.getvalue()


def running_mean(values: np.ndarray, share: float = 0.04) -> np.ndarray:
    """Each of [N] values averaged over a window of `share` of them, which stays centred and so narrows at the ends."""
    index, sums = np.arange(len(values)), np.concatenate([[0.0], np.cumsum(values)])
    reach = np.minimum(int(len(values) * share / 2), np.minimum(index, index[::-1]))
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def number(value: float) -> str:
    """Three digits, whole numbers whole: 0, 0.00123, 3.4, 57, 3,000."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
