"""A report is one file that opens anywhere, and holds everything it was given."""

from __future__ import annotations

import base64
import io
import itertools
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_common.reporting.charts import Curve
from sam_common.reporting.page import (
    Cell,
    Part,
    Picture,
    PictureRow,
    Report,
    Section,
    Spread,
    Table,
    render,
    write_report,
)

_VOID = {"meta", "img"}


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
    assert [value for _, name, value in attributes if name == "aria-label"] == ["total goes from 3 to 1"]
    assert [tag for tag, name, value in attributes if name == "role"] == ["div"]
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


def test_ids_are_unique(report: Report) -> None:
    """Invariant: two charts bring no id twice, as matplotlib's files would."""
    section = Section("s", curves=report.parts[0].sections[2].curves * 2)
    document = render(Report("r", "l", [Part("p", "l", sections=[section])]))
    assert document.count("<svg") == 2
    assert [value for _, name, value in _parse(document).attributes if name == "id"] == ["part-0"]


def test_bars_are_as_long_as_percentages() -> None:
    """Derived by hand: a bar is its number in per cent of the cell, at most the whole, none where nothing was measured;
    a spread's is its mean. Numbers stand right, whole ones whole, and so does their header."""
    cells: list[Cell] = [12.34, 130.0, None, float("nan"), Spread(40.0, 2.0), 12_345]
    table = Table("t", ("name", "value"), [("row", cell) for cell in cells], bars=(1,))
    document = render(Report("r", "l", [Part("p", "l", sections=[Section("s", tables=[table])])]))
    assert re.findall(r'<td class="number bar" style="--share: ([\d.]+)%">(.*?)</td>', document) == [
        ("12.3", "12.3"), ("100.0", "130.0"), ("40.0", "40.0 ± 2.0"), ("100.0", "12,345"),
    ]  # fmt: skip
    assert document.count('<td class="number" title="not measured">–</td>') == 2
    assert re.findall(r'<th scope="col"(.*?)>', document) == ["", ' class="number"']


def test_only_long_tables_are_folded(report: Report) -> None:
    """Invariant: a folded table is named and counted in what opens it, the other by its caption."""
    document = render(report)
    assert document.count("<details>") == document.count("<caption>") == 1
    assert re.search(r"<summary>Per class <small>1 rows</small></summary>", document)
    assert "<caption>Quality</caption>" in document


def test_empty_report_is_a_page() -> None:
    """Edge case: no sections, no facts."""
    assert "Nothing" in _parse(render(Report("Nothing", "was run"))).texts


def test_mean_and_deviation_by_hand() -> None:
    """The sample's standard deviation; none of one value, 0 as a bar; NaN counts nowhere; digits as asked for."""
    assert Spread.of([1, 3]) == (2, pytest.approx(math.sqrt(2)))
    assert Spread.of([1, 3, math.nan]) == (2, pytest.approx(math.sqrt(2)))
    mean, sd = Spread.of([5])
    assert mean == 5 and math.isnan(sd) and Spread.of([5]).bar == 0
    assert [str(Spread.of(values)) for values in ([1, 3], [5], [])] == ["2.0 ± 1.4", "5.0", "nan"]
    assert [f"{Spread.of([1, 3])}", f"{Spread.of([1, 3]):.2f}", f"{Spread.of([1, 3]):+.1f}"] == [
        *("2.0 ± 1.4", "2.00 ± 1.41", "+2.0 ± 1.4")
    ]
