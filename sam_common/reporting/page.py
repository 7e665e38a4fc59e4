"""One self-contained HTML file about a run: what was done, tables, curves, pictures. No script, no external resource.

A report is a list of parts, each from one method; whoever runs an experiment appends its own, made of sections.
Everything given as text is escaped; numbers are formatted here.
"""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from sam_common.io.files import write_text
from sam_common.reporting.charts import Curve, line_chart


class Spread(NamedTuple):
    """A mean, and the standard deviation around it; NaN where there is none, as of a single value."""

    mean: float
    sd: float

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if math.isnan(self.sd) else f"{self.mean:.1f} ± {self.sd:.1f}"


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
    parts = "\n".join(_part(part, number) for number, part in enumerate(report.parts))
    summary = "".join(
        f'<h2><a href="#part-{number}">{_text(part.title)}</a></h2>{_highlights(part)}'
        for number, part in enumerate(report.parts)
    )
    facts = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in report.facts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{_text(report.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{_text(report.title)}</h1>
<p class="lead">{_text(report.lead)}</p>
{summary}
</header>
<main>
{parts}
{f'<section><h2>What was run</h2><dl class="facts">{facts}</dl></section>' if facts else ""}
</main>
</body>
</html>
"""


def _part(part: Part, number: int) -> str:
    sections = "".join(_section(section) for section in part.sections)
    notes = "".join(f"<li>{_text(note)}</li>" for note in part.notes)
    return (
        f'<h2 class="part" id="part-{number}">{_text(part.title)}</h2><p class="lead">{_text(part.lead)}</p>'
        + (f'<section><h3>How to read this</h3><ul class="notes">{notes}</ul></section>' if notes else "")
        + sections
    )


def _highlights(part: Part) -> str:
    tiles = "".join(
        f'<div class="highlight"><dt>{_text(meaning)}</dt><dd>{_text(value)}</dd></div>'
        for value, meaning in part.highlights
    )
    return f'<dl class="highlights">{tiles}</dl>' if tiles else ""


def _section(section: Section) -> str:
    parts = [f"<p>{_text(paragraph)}</p>" for paragraph in section.text]
    parts += [_table(table) for table in section.tables]
    parts += [line_chart(curve) for curve in section.curves]
    parts += [_picture_row(row) for row in section.rows]
    return f"<section><h3>{_text(section.title)}</h3>{''.join(parts)}</section>"


def _table(table: Table) -> str:
    words = [all(isinstance(row[column], str) for row in table.rows) for column in range(len(table.header))]
    head = "".join(
        f'<th scope="col"{"" if is_text else " class=number"}>{_text(name)}</th>'
        for name, is_text in zip(table.header, words, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_cell(cell, column, column in table.bars) for column, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    caption = "" if table.folded else f"<caption>{_text(table.caption)}</caption>"
    whole = (
        f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}'
    )
    if table.folded:
        return (
            f"<details><summary>{_text(table.caption)} <small>{len(table.rows)} rows</small></summary>{whole}</details>"
        )
    return whole


def _cell(cell: Cell, column: int, bar: bool) -> str:
    if column == 0:
        return f'<th scope="row">{_text(str(cell))}</th>'
    if isinstance(cell, str):
        return f"<td>{_text(cell)}</td>"
    value = cell.mean if isinstance(cell, Spread) else cell
    if value is None or not math.isfinite(value):
        return '<td class="number" title="not measured">–</td>'
    shown = str(cell) if isinstance(cell, Spread) else f"{cell:.1f}" if isinstance(cell, float) else f"{cell:,}"
    style = f' style="--share:{min(100.0, max(0.0, float(value))):.1f}%"' if bar else ""
    return f'<td class="number{" bar" if bar else ""}"{style}>{shown}</td>'


def _picture_row(row: PictureRow) -> str:
    pictures = "".join(
        f'<div class="picture"><h4>{_text(picture.title)}</h4>'
        f'<img src="{_data_uri(picture.pixels)}" alt="{_text(picture.description)}" '
        f'width="{picture.pixels.shape[1]}" height="{picture.pixels.shape[0]}"></div>'
        for picture in row.pictures
    )
    marks = "".join(f"<mark>{_text(word)}</mark> " for word in row.marked)
    marked = f' · <span class="marks">{_text(row.mark_label)} {marks}</span>' if row.marked else ""
    return (
        f'<figure class="pictures"><div class="panels">{pictures}</div>'
        f"<figcaption>{_text(row.caption)}{marked}</figcaption></figure>"
    )


def _data_uri(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)  # full colour keeps small letters sharp
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _text(text: str) -> str:
    return html.escape(text)


_STYLE = """
:root {
  --page: #f6f7f9; --card: #ffffff; --ink: #1b1f27; --quiet: #5a6372; --rule: #dfe3ea; --accent: #2f5fd0;
  --bar: #dbe6ff; --mark: #ffe9b8; --mark-ink: #5c3d00;
  --c0: #2f5fd0; --c1: #c4480f; --c2: #157f4b; --c3: #8b3fc1; --c4: #b0256b; --c5: #5f6b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151b; --card: #1b2029; --ink: #e8ebf1; --quiet: #a2acbb; --rule: #323a47; --accent: #8fb0ff;
    --bar: #2a3f6e; --mark: #5a430f; --mark-ink: #ffe3a6;
    --c0: #8fb0ff; --c1: #ff9d6b; --c2: #66d39b; --c3: #cf9bf5; --c4: #ff8abf; --c5: #d3dd62;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 40px 24px 64px; max-width: 1240px; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
header { margin-bottom: 28px; }
h1 { font-size: 2.1rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 10px; text-wrap: balance; }
h2, h3 { font-size: 1.2rem; letter-spacing: -0.01em; margin: 0 0 12px; }
header h2 { margin: 26px 0 10px; }
h2.part { font-size: 1.7rem; line-height: 1.2; margin: 52px 0 8px; }
a { color: inherit; text-decoration-color: var(--accent); text-underline-offset: 4px; }
h4 { font-size: 0.75rem; font-weight: 600; color: var(--quiet); margin: 0 0 6px; }
p { margin: 0 0 12px; max-width: 72ch; }
.lead { font-size: 1.08rem; color: var(--quiet); }
section {
  background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 22px 24px; margin: 0 0 20px;
}
section > :last-child { margin-bottom: 0; }
.highlights { display: flex; flex-wrap: wrap; gap: 12px; margin: 0; }
.highlight {
  flex: 1 1 150px; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 14px 18px;
  display: flex; flex-direction: column-reverse; justify-content: flex-end;
}
.highlight dd { margin: 0; font-size: clamp(1.35rem, 3vw, 1.9rem); font-weight: 650; line-height: 1.15; }
.highlight dt { color: var(--quiet); font-size: 0.85rem; }
.facts { display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 6px 20px; margin: 0; }
.facts > div { display: contents; }
.facts dt { color: var(--quiet); }
.facts dd { margin: 0; overflow-wrap: anywhere; font: 0.87rem/1.8 ui-monospace, Menlo, Consolas, monospace; }
.notes { margin: 0; padding-left: 1.1em; max-width: 76ch; }
.notes li { margin: 0 0 6px; }
.scroll { overflow-x: auto; margin: 0 0 8px; }
table { border-collapse: collapse; width: 100%; font-size: 0.94rem; margin: 0 0 10px; }
caption { text-align: left; color: var(--quiet); padding: 0 0 8px; }
th, td { text-align: left; padding: 7px 12px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
thead th { font-weight: 600; font-size: 0.82rem; color: var(--quiet); border-bottom-width: 2px; }
tbody th { font-weight: 500; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.bar {
  min-width: 130px; background: linear-gradient(var(--bar), var(--bar)) left center / var(--share) 68% no-repeat;
}
.note, figcaption { color: var(--quiet); font-size: 0.88rem; }
details { border-top: 1px solid var(--rule); padding-top: 10px; margin-top: 10px; }
summary { cursor: pointer; font-weight: 600; padding: 4px 0; }
summary small { color: var(--quiet); font-weight: 400; margin-left: 6px; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 4px; }
figure { margin: 0 0 20px; }
.chart figcaption { color: var(--ink); font-size: 1rem; font-weight: 600; margin-bottom: 4px; }
.chart svg { width: 100%; min-width: 560px; height: auto; display: block; }
.chart text { fill: var(--quiet); font-size: 12px; }
.grid { stroke: var(--rule); }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.line-0 { color: var(--c0); } .line-1 { color: var(--c1); } .line-2 { color: var(--c2); }
.line-3 { color: var(--c3); } .line-4 { color: var(--c4); } .line-5 { color: var(--c5); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 0.85rem; color: var(--quiet); }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 14px; height: 4px; border-radius: 2px; background: currentColor;
  margin-right: 6px; vertical-align: middle; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 14px; }
.picture img { width: 100%; height: auto; border-radius: 8px; display: block; }
.pictures { padding: 18px 0 0; border-top: 1px solid var(--rule); }
.pictures figcaption { margin-top: 8px; }
mark { background: var(--mark); color: var(--mark-ink); border-radius: 5px; padding: 1px 7px; white-space: nowrap; }
@media print {
  body { background: none; max-width: none; padding: 0; font-size: 11pt; }
  section { border: 0; padding: 0 0 12pt; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .panels { grid-template-columns: repeat(3, 1fr); }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
