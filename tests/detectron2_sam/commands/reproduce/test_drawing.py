"""The pictures of the ablations' report: what is greater is drawn further, and what is not resolved is not full."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from detectron2_sam.commands.reproduce.drawing import Difference, draw_differences, draw_lines

SVG = "{http://www.w3.org/2000/svg}"


def elements(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + tag))


def numbers(svg: str, tag: str, key: str) -> list[float]:
    return [float(element.attrib[key]) for element in elements(svg, tag)]


def test_differences_lie_on_one_axis() -> None:
    """Positions are linear in the means over all groups, 0 where the dark line is; what is not resolved is hollow."""
    groups = {
        "A <1>": [Difference("a > b", 4.0, 1.0, True), Difference("c > b", -2.0, 0.5, True)],
        "empty": [],
        "B": [Difference("d > e", 1.0, 2.0, False)],
    }
    svg = draw_differences(groups)
    first, second, third = numbers(svg, "circle", "cx")
    zero = next(float(line.attrib["x1"]) for line in elements(svg, "line") if line.attrib["stroke"] == "#222222")
    unit = (first - zero) / 4
    assert unit > 0 and [second, third] == pytest.approx([zero - 2 * unit, zero + unit], abs=0.2)
    assert [circle.attrib["fill"] == "white" for circle in elements(svg, "circle")] == [False, False, True]
    assert len({circle.attrib["stroke"] for circle in elements(svg, "circle")}) == 3
    words = [element.text for element in elements(svg, "text")]
    assert {"A <1>", "B", "c > b", "-2.0 ± 0.5"} <= set(words) and "empty" not in words
    assert elements(draw_differences({}), "circle") == []  # edge: nothing was run


def test_lines_go_through_their_points() -> None:
    """Higher means lie higher, further ones further right, and each line is named; edge: a line of one point."""
    svg = draw_lines({"ours": [(5, 40.0, 1.0), (10, 60.0, 2.0)], "theirs": [(10, 50.0, 0.0)]}, "epochs", "Dice")
    xs, ys = numbers(svg, "circle", "cx"), numbers(svg, "circle", "cy")
    assert xs[0] < xs[1] and abs(xs[1] - xs[2]) < 10
    assert ys[0] > ys[2] > ys[1] and ys[0] - ys[2] == pytest.approx(ys[2] - ys[1], abs=0.2)
    assert {"ours", "theirs", "epochs", "Dice"} <= {element.text for element in elements(svg, "text")}
