"""Charts: what is drawn, what is left out, and that the same numbers give the same file."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from sam_common.reporting.charts import Curve, line_chart, number, running_mean


def paths(svg: str, color: str) -> list[np.ndarray]:
    """The corners [N, 2] of each line of a colour."""
    drawn = [path for path in ElementTree.fromstring(svg).iter("path") if f"stroke: {color};" in path.attrib["style"]]
    return [np.array(re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"]), np.float64) for path in drawn]


def test_lines_go_through_their_points() -> None:
    """Derived by hand: every line twice, itself and its mean; x and y are linear, y from 0 up to a round number."""
    chart = line_chart(Curve("Loss", "iteration", {"a": [(0, 4.0), (10, 1.0), (20, 2.0)], "b": [(0, 0.0), (20, 3.9)]}))
    assert chart is not None
    faint, mean = paths(chart.svg, "var(--c0)")
    assert faint == pytest.approx(mean)
    (left, top), (middle, low), (right, half) = faint
    assert left < middle < right and middle - left == pytest.approx(right - middle, abs=0.02)
    (_, zero), (_, high) = paths(chart.svg, "var(--c1)")[0]
    assert [zero - low, zero - half, zero - high] == pytest.approx(
        [(zero - top) * k for k in (0.25, 0.5, 0.975)], abs=0.02
    )
    assert [(line.name, line.color, line.first, line.last) for line in chart.legend] == [
        ("a", "var(--c0)", "4", "2"), ("b", "var(--c1)", "0", "3.9"),
    ]  # fmt: skip
    words = [element.text for element in ElementTree.fromstring(chart.svg).iter("text")]
    assert {"iteration", "0", "2", "4", "10", "20"} <= set(words)
    small = line_chart(Curve("Loss", "iteration", {"a": [(0, 0.0), (1, 0.004)]}))
    assert small is not None and ">0.001</text>" in small.svg


def test_first_iterations_do_not_flatten_the_rest() -> None:
    """Invariant: one value of a thousand is cut off at the top; edge case: seven lines share six colours."""
    points = [(float(i), 1000.0 if i == 0 else 1.0) for i in range(1000)]
    chart = line_chart(Curve("Loss", "iteration", {str(k): points for k in range(7)}))
    assert chart is not None and chart.legend[6].color == chart.legend[0].color == "var(--c0)"
    y = paths(chart.svg, "var(--c0)")[0][:, 1]
    assert len(y) <= 400 and y.min() > 0 and (y[1:] < 100).all()


def test_chart_leaves_out_what_cannot_be_drawn() -> None:
    """Edge case: NaN losses leave a gap, a line without points and a chart without lines leave nothing."""
    chart = line_chart(Curve("Loss", "iteration", {"a": [(0, float("nan")), (1, 2.0), (2, 2.0)], "b": []}))
    assert chart is not None and "nan" not in chart.svg and [line.name for line in chart.legend] == ["a"]
    assert len(paths(chart.svg, "var(--c0)")) == 2
    assert line_chart(Curve("Loss", "iteration", {"b": []})) is None
    assert line_chart(Curve("Loss", "iteration", {"one point of zero": [(7, 0.0)]})) is not None


def test_same_numbers_give_the_same_chart() -> None:
    """Invariant: another process draws the same bytes: no date, no random ids. Nothing of the page's is overwritten:
    there are no ids, and every colour is one of its variables."""
    curve = Curve("Loss", "iteration", {"a": [(0, 3.0), (10, 1.0)]})
    chart = line_chart(curve)
    assert chart is not None and " id=" not in chart.svg and "<style" not in chart.svg
    assert not re.search(r"#[0-9a-f]{6}", chart.svg)
    program = f"from sam_common.reporting.charts import *; print(line_chart({curve!r}).svg, end='')"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == chart.svg
    )


def test_running_mean_by_hand() -> None:
    """Derived by hand: a window of three points in the middle, of one at the ends; a constant stays."""
    assert running_mean(np.array([0.0, 3.0, 6.0, 0.0]), share=0.5).tolist() == [0.0, 3.0, 3.0, 0.0]
    assert set(running_mean(np.full(100, 2.0)).tolist()) == {2.0}


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (0.00123, "0.00123"), (3.4, "3.4"), (57, "57"), (3000, "3,000")]
)
def test_numbers_are_short(value: float, words: str) -> None:
    """Case table: three digits, whole numbers whole."""
    assert number(value) == words


def test_importing_draws_nothing() -> None:
    """Invariant: the package imports without matplotlib, which takes half a second."""
    program = "import sys, sam_common.reporting.page; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
