"""The pictures of the ablations' report: what is greater is drawn further, and what is not resolved is not full."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from detectron2_sam.commands.reproduce.drawing import Difference, draw_differences, draw_lines
from sam_common.reporting.page import Spread

SVG = "{http://www.w3.org/2000/svg}"


def elements(svg: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + tag))


def points(svg: str) -> list[tuple[float, float, str]]:
    """Place and style of each dot."""
    return [(float(dot.attrib["x"]), float(dot.attrib["y"]), dot.attrib["style"]) for dot in elements(svg, "use")]


def corners(svg: str) -> list[tuple[float, float, str]]:
    """First corner and style of each line."""
    paths = [path.attrib for path in elements(svg, "path") if "style" in path.attrib]
    return [(float(path["d"].split()[1]), float(path["d"].split()[2]), path["style"]) for path in paths]


def test_differences_lie_on_one_axis() -> None:
    """Positions are linear in the means over all groups, 0 where the dark line is; what is not resolved is hollow."""
    groups = {
        "A <1>": [Difference("a > b", Spread(4.0, 1.0), True), Difference("c > b", Spread(-2.0, 0.5), True)],
        "empty": [],
        "B": [Difference("d > e", Spread(1.0, 2.0), False)],
    }
    svg = draw_differences(groups)
    first, second, third = points(svg)
    zero = next(x for x, _, style in corners(svg) if "#222222" in style)
    unit = (first[0] - zero) / 4
    assert unit > 0 and [second[0], third[0]] == pytest.approx([zero - 2 * unit, zero + unit], abs=0.05)
    assert first[1] < second[1] < third[1]
    assert ["#ffffff" in style for _, _, style in (first, second, third)] == [False, False, True]
    assert len({style.partition("stroke")[2] for _, _, style in (first, second, third)}) == 3
    words = [element.text for element in elements(svg, "text")]
    assert {"A <1>", "B", "c > b", "-2.0 ± 0.5"} <= set(words) and "empty" not in words
    assert points(draw_differences({})) == []  # edge: nothing was run
    assert draw_differences(groups) == svg  # no date, no random ids


def test_lines_go_through_their_points() -> None:
    """Higher means lie higher, further ones further right, and each line is named; edge: a line of one point."""
    svg = draw_lines({"ours": [(5, 40.0, 1.0), (10, 60.0, 2.0)], "theirs": [(10, 50.0, 0.0)]}, "epochs", "Dice")
    (x0, y0, _), (x1, y1, _), (x2, y2, _) = points(svg)[:3]  # the others are the legend's
    assert x0 < x1 and abs(x1 - x2) < 10
    assert y0 > y2 > y1 and y0 - y2 == pytest.approx(y2 - y1, abs=0.05)
    assert {"ours", "theirs", "epochs", "Dice"} <= {element.text for element in elements(svg, "text")}
