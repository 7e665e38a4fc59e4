"""A report is one file that opens anywhere, and holds everything it was given."""

from __future__ import annotations

import base64
import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_common.reporting.charts import Curve, line_chart, round_ticks, running_mean
from sam_common.reporting.page import Part, Picture, PictureRow, Report, Section, Table, render, write_report

_VOID = {"meta", "img", "line", "polyline", "br"}


class _Checker(HTMLParser):
    """Collects attributes and text, and demands that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _parse(document: str) -> _Checker:
    checker = _Checker()
    checker.feed(document)
    checker.close()
    assert not checker.open
    return checker


@pytest.fixture
def report() -> Report:
    pixels = np.full((8, 12, 3), 200, np.uint8)
    rows = [("all", 47.5, 80.1, 56), ("unseen", float("nan"), None, 18), ("<b>odd</b>", 1.0, 2.0, 3)]
    picture = PictureRow([Picture("Input", pixels, "a scene")], "scene 1", "unseen:", ["red ring"])
    sections = [
        Section("Results", ["A paragraph."], [Table("Quality", ("classes", "PQ", "SQ", "n"), rows, bars=(1,))]),
        Section("Classes", tables=[Table("Per class", ("class", "PQ"), [("red ring", 12.5)], folded=True)]),
        Section("Training", curves=[Curve("Loss", "iteration", {"total": [(0, 3.0), (10, 1.0)]})], rows=[picture]),
    ]
    return Report(
        "Title & more",
        "What it is.",
        parts=[
            Part("First method", "What it does.", [("47.5", "PQ")], sections, ["Drawn pictures only."]),
            Part("Second method", "Another."),
        ],
        facts=[("command", "python tools/demo.py <x>")],
    )


def test_report_needs_no_other_file(report: Report) -> None:
    """Invariant: no script, no link, no address; every image carries its pixels in the page."""
    document = render(report)
    checker = _parse(document)
    assert not re.search(r"https?:|//|@import|url\(|<script|<link", re.sub(r"base64,[A-Za-z0-9+/=]+", "", document))
    sources = [value for _, name, value in checker.attributes if name in ("src", "href")]
    assert sources and all(re.match("data:image/jpeg;base64,|#part-[01]$", source) for source in sources)
    image = Image.open(io.BytesIO(base64.b64decode(next(s for s in sources if s[0] == "d").partition(",")[2])))
    assert image.size == (12, 8)


def test_every_cell_is_there_and_escaped(report: Report) -> None:
    """Invariant: each row's name and numbers appear as text; markup in names stays text; NaN and None are a dash."""
    document = render(report)
    texts = _parse(document).texts
    for expected in ("all", "47.5", "80.1", "56", "unseen", "18", "<b>odd</b>", "red ring", "12.5", "Title & more"):
        assert expected in texts
    assert texts.count("–") == 2
    assert "nan" not in texts
    assert {"A paragraph.", "Drawn pictures only.", "python tools/demo.py <x>"} <= set(texts)


def test_reader_without_sight_is_served(report: Report) -> None:
    """Invariant: the language is stated, images and charts are described, header cells say what they head."""
    attributes = _parse(render(report)).attributes
    assert ("html", "lang", "en") in attributes
    assert ("img", "alt", "a scene") in attributes
    assert [value for tag, name, value in attributes if tag == "svg" and name == "aria-label"] == [
        "total goes from 3 to 1"
    ]
    assert {value for tag, name, value in attributes if tag == "th" and name == "scope"} == {"col", "row"}


def test_report_is_written_whole(report: Report, tmp_path: Path) -> None:
    """Round trip: the file holds the document, and nothing else is left in the folder."""
    write_report(tmp_path / "deep" / "report.html", report)
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == render(report)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_a_reader_gets_to_each_part(report: Report) -> None:
    """Invariant: the summary has a link to each part, with its numbers; headings go down one level at a time."""
    checker = _parse(render(report))
    targets = {value for tag, name, value in checker.attributes if name == "id"}
    assert (
        [value[1:] for _, name, value in checker.attributes if name == "href"]
        == sorted(targets)
        == [
            "part-0",
            "part-1",
        ]
    )
    assert checker.texts.count("First method") == checker.texts.count("Second method") == 2
    levels = [int(level) for level in re.findall(r"<h([1-6])", render(report))]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_empty_report_is_a_page() -> None:
    """Edge case: no sections, no facts."""
    assert "Nothing" in _parse(render(Report("Nothing", "was run"))).texts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0, 3000, [0, 1000, 2000, 3000]), (0, 0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
     (7, 7, [7, 7.2, 7.4, 7.6, 7.8, 8])],
)  # fmt: skip
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    """Derived by hand: steps of 1, 2 or 5 times a power of ten that span the values, an empty span included."""
    assert round_ticks(low, high) == pytest.approx(expected)


def test_running_mean_by_hand() -> None:
    """Derived by hand: a window of three points in the middle, of one at the ends; a constant stays."""
    points = [(0, 0.0), (1, 3.0), (2, 6.0), (3, 0.0)]
    assert running_mean(points, share=0.5) == [(0, 0.0), (1, 3.0), (2, 3.0), (3, 0.0)]
    assert {y for _, y in running_mean([(i, 2.0) for i in range(100)])} == {2.0}


def test_chart_leaves_out_what_cannot_be_drawn() -> None:
    """Edge case: NaN losses leave a gap, a line without points and a chart without lines leave nothing."""
    chart = line_chart(Curve("Loss", "iteration", {"a": [(0, float("nan")), (1, 2.0)], "b": []}))
    assert "nan" not in chart and chart.count("<polyline") == 2
    assert line_chart(Curve("Loss", "iteration", {"b": []})) == ""
