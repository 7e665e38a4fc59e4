"""The pictures of the report of `detectron2-sam reproduce`, SVG files: differences between rows, and lines.

Both show a mean as a point and the sample standard deviation to either side of it as a bar. They are white on a dark
page too, where the file is an image and has no style to follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np

from sam_common.reporting.charts import svg_file
from sam_common.reporting.page import Spread

_BLUE, _RED, _GREY, _GRID, _INK = "#0072b2", "#d55e00", "#767676", "#dddddd", "#222222"  # told apart by all eyes


class Difference(NamedTuple):
    """By how much one row is better than another, in points of the metric; drawn as a full point where `resolved`."""

    name: str
    spread: Spread
    resolved: bool


Point = tuple[float, float, float]
"""x, mean, standard deviation."""


def draw_differences(groups: Mapping[str, Sequence[Difference]]) -> str:
    """One line for each difference below the name of its group, on one axis of points: right of 0 is as was claimed."""
    from matplotlib.figure import Figure

    lines: list[str | Difference] = []
    for name, group in groups.items():
        lines += ["", name, *group] if group else []
    figure = Figure((9.4, 0.23 * len(lines) + 0.6), layout="constrained")
    axes = figure.add_subplot(frameon=False, ylim=(len(lines) - 0.5, 0.5))
    axes.axvline(0, color=_INK, linewidth=1)
    axes.grid(axis="x", color=_GRID)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.set_yticks(range(len(lines)), [line if isinstance(line, str) else line.name for line in lines])
    for y, (line, label) in enumerate(zip(lines, axes.get_yticklabels(), strict=True)):
        if isinstance(line, str):
            label.set_fontweight("bold")
            continue
        color = _GREY if not line.resolved else _BLUE if line.spread.mean > 0 else _RED
        full, mean, bar = color if line.resolved else "white", line.spread.mean, line.spread.bar
        axes.errorbar(mean, y, xerr=bar, fmt="o", color=color, linewidth=2, markerfacecolor=full)
        value, right = f"{mean:+.1f} ± {bar:.1f}", axes.get_yaxis_transform()
        axes.annotate(value, (1, y), (80, 0), right, "offset points", color=color, ha="right", va="center")
    return svg_file(figure)


def draw_lines(lines: Mapping[str, Sequence[Point]], x_label: str, y_label: str) -> str:
    """Lines through means, named above the plot; bars at the same x stand side by side."""
    from matplotlib.figure import Figure

    figure = Figure((9.4, 3.6), layout="constrained")
    axes = figure.add_subplot(frameon=False, xlabel=x_label, ylabel=y_label)
    axes.grid(axis="y", color=_GRID)
    axes.tick_params(length=0)
    aside = 0.006 * np.ptp([x for line in lines.values() for x, _, _ in line])
    for index, ((name, line), color) in enumerate(zip(lines.items(), cycle((_BLUE, _RED, _GREY)), strict=False)):
        x, mean, spread = np.transpose(line)
        x = x + aside * (index - (len(lines) - 1) / 2)
        axes.errorbar(x, mean, spread, fmt="-o", color=color, linewidth=2, elinewidth=1, label=name)
    figure.legend(loc="outside upper left", ncols=len(lines), frameon=False, labelcolor="linecolor")
    return svg_file(figure)
