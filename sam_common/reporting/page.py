"""One self-contained HTML file about a run: what was done, tables, curves, pictures. No script, no external resource.

A report is a list of parts, each from one method; whoever runs an experiment appends its own, made of sections. The
page is `page.html` in the style `page.css`. Everything given as text is escaped; numbers are formatted here.
"""

from __future__ import annotations

import base64
import io
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from sam_common.io.files import write_text
from sam_common.reporting.charts import Curve, line_chart


class Spread(NamedTuple):
    """A mean, and the standard deviation around it; each NaN where there is none, as the latter of a single value."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of a sample; the sample standard deviation. Values that are NaN do not count."""
        known = [value for value in values if not math.isnan(value)]
        mean = statistics.fmean(known) if known else math.nan
        return cls(mean, statistics.stdev(known) if len(known) > 1 else math.nan)

    @property
    def bar(self) -> float:
        """The standard deviation to draw or to compare with, 0 of a single value."""
        return 0.0 if math.isnan(self.sd) else self.sd

    def __format__(self, spec: str) -> str:
        """`spec` is that of the numbers, .1f unless told otherwise."""
        spec = spec or ".1f"
        return f"{self.mean:{spec}}" + ("" if math.isnan(self.sd) else f" ± {self.sd:{spec.lstrip('+')}}")

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        return format(self)


Cell = str | float | int | Spread | None


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first column a row's name. `bars`: columns of percentages that are drawn behind the number.

    With `folded` the table opens on a click: for the long ones.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    bars: Sequence[int] = ()
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """One picture [H, W, 3] uint8 RGB; `description` is what a reader who cannot see it is told."""

    title: str
    pixels: np.ndarray
    description: str


@dataclass(frozen=True)
class PictureRow:
    """Pictures side by side, e.g. input, truth and prediction, over one caption.

    `marked` lists words of the caption's subject that deserve attention, under `mark_label`.
    """

    pictures: Sequence[Picture]
    caption: str
    mark_label: str = ""
    marked: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    curves: Sequence[Curve] = ()
    rows: Sequence[PictureRow] = ()


@dataclass(frozen=True)
class Part:
    """What one method adds. `highlights`: (value, meaning), the numbers to see first; `notes`: how to read them."""

    title: str
    lead: str
    highlights: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """`facts`: (name, value), what was run."""

    title: str
    lead: str
    parts: Sequence[Part] = ()
    facts: Sequence[tuple[str, str]] = ()


def write_report(path: str | os.PathLike, report: Report) -> None:
    """Writes the report as one HTML file; it appears complete or not at all."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The report as an HTML document."""
    return _environment().get_template("page.html").render(report=report)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "bar": _bar, "chart": line_chart, "data_uri": _data_uri}
    return environment


def _number(cell: float | Spread | None) -> str:
    """A number as a table shows it; a dash where nothing was measured."""
    if cell is None or not math.isfinite(cell):
        return "–"
    return str(cell) if isinstance(cell, Spread) else f"{cell:.1f}" if isinstance(cell, float) else f"{cell:,}"


def _bar(cell: float | Spread) -> str:
    """The length of the bar behind a percentage, in CSS."""
    return f"{min(100.0, max(0.0, float(cell))):.1f}%"


def _data_uri(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)  # full colour keeps small letters sharp
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
