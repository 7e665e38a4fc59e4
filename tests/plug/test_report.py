"""Sections about amodal results: what the table and the pictures are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plug.evaluation.evaluator import AmodalEvaluator
from plug.report import amodal_picture_rows, amodal_table
from sam_common.reporting.page import Part, Report, Section, render
from tests.plug.evaluation.test_evaluator import columns
from tests.support.worlds import amodal_world, answered, asked


def test_table_has_both_readings_of_every_answer() -> None:
    """By hand: metrics in the order of the header; what was not measured, or is no number, is a dash on the page."""
    means = {"mIoU_full": 81.25, "mIoU_occ_strict": 35.0, "mIoU_occ_compat": None}
    table = amodal_table({"model": means | {"AP": 50.0}, "baseline": means}, "c")
    assert table.rows == [["model", 81.25, 35.0, None, 50.0], ["baseline", 81.25, 35.0, None, None]]
    page = render(Report("r", "l", [Part("p", "l", (), [Section("s", tables=[table])])]))
    assert page.count("not measured") == 3


@pytest.mark.parametrize("makes_visible", [True, False])
def test_pictures_are_drawn_from_the_results_file(
    makes_visible: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input, truth and prediction of the chosen image, evenly: of images 0-4 with objects the first, middle and last.

    The prediction is hatched where its amodal mask is not visible; boxes of nothing and missed objects are not drawn.
    G columns 0-3, V 0-1, A 1-2: full 2/4, hidden 1/2.
    """
    spec = amodal_world([[(0, columns(0, 4), columns(0, 2)), (0, columns(4, 6), columns(4, 6))]] * 5 + [[]])
    evaluator = AmodalEvaluator(spec, output_dir=tmp_path)
    for image in range(5):
        found = [columns(1, 3), columns(0, 6)]
        visible = [columns(1, 2), columns(0, 6)] if makes_visible else None
        evaluator.process([asked(image, [(2 * image + 1, 0), (None, None)])], [answered(found, visible)])
    evaluator.evaluate()
    drawn: list[tuple[list[np.ndarray], list[np.ndarray]]] = []

    def draw(image: np.ndarray, amodal: list, visible: list, boxes: np.ndarray | None = None) -> np.ndarray:
        drawn.append((amodal, visible))
        return image

    monkeypatch.setattr("plug.report.draw_amodal", draw)
    monkeypatch.setattr("plug.report.read_image", lambda path: torch.zeros(3, 6, 6, dtype=torch.uint8))
    for record in spec.load():
        for entry in record["annotations"]:
            entry["visible_bbox"] = entry["bbox"]
    rows = amodal_picture_rows(tmp_path, spec, count=3)
    assert [row.caption.split()[0] for row in rows] == ["0.jpg", "2.jpg", "4.jpg"]
    assert rows[0].caption == "0.jpg · IoU of this picture's whole objects 50.0, hidden parts 50.0"
    _, (truth, seen), (predicted, shown) = drawn[:3]
    assert len(truth) == len(predicted) == 1
    assert (truth[0] == columns(0, 4).numpy()).all() and (seen[0] == columns(0, 2).numpy()).all()
    assert (predicted[0] == columns(1, 3).numpy()).all()
    assert (shown[0] == columns(1, 2 if makes_visible else 3).numpy()).all()
