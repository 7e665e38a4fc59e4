"""The report of a run, from the files that a real evaluation of generated scenes leaves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from detectron2_sam.commands.prepare.generated import prepare
from possam.report import class_table, image_quality, picture_rows, quality_table
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.generated.specs import scene_specs
from sam_common.data.generated.vocabulary import seen_vocabulary
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from sam_common.reporting.page import Part, Report, Section, render
from sam_common.reporting.run_files import read_json


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetSpec, Path]:
    """Four test scenes, and the evaluation of a prediction that finds everything but the first thing of each."""
    root = tmp_path_factory.mktemp("world")
    prepare(root, train=1, test=4, size=64)
    spec = next(spec for spec in scene_specs(root) if spec.name == "generated_test_panoptic")
    evaluator = PanopticQualityEvaluator(spec, output_dir=root / "run", training_vocabulary=seen_vocabulary())
    for record in spec.load():
        labels = read_ground_truth(record)
        labels[labels == 1] = 0
        segments = [
            {"id": index, "category_id": segment["category_id"], "isthing": True, "score": 1.0}
            for index, segment in enumerate(record["segments_info"], start=1)
            if index > 1
        ]
        evaluator.process([record], [{"panoptic_seg": (labels, segments)}])
    evaluator.evaluate()
    return spec, root / "run"


def test_tables_hold_what_was_measured(evaluated: tuple[DatasetSpec, Path]) -> None:
    """Equality: the tables repeat panoptic_quality.json; groups by row, every class once, best first."""
    quality = read_json(evaluated[1] / "panoptic_quality.json")
    table = quality_table(quality, "Results")
    assert [row[0] for row in table.rows][:3] == ["all", "things", "stuff"]
    assert table.rows[0][1:] == [quality["means"][key] for key in ("PQ", "SQ", "RQ")] + [int(quality["means"]["n"])]
    classes = class_table(quality).rows
    assert sorted(row[0] for row in classes) == sorted(entry["name"] for entry in quality["classes"])
    scores = [row[3] for row in classes if row[3] is not None]
    assert scores == sorted(scores, reverse=True)
    document = render(Report("r", "l", [Part("p", "l", (), [Section("s", tables=[table, class_table(quality)])])]))
    assert all(str(row[0]) in document for row in (*table.rows, *classes))


def test_pictures_show_input_truth_and_prediction(evaluated: tuple[DatasetSpec, Path]) -> None:
    """Invariant: three pictures of one size a row, unseen words marked, the image's own PQ in the caption."""
    spec, run = evaluated
    rows = picture_rows(run, spec, training_vocabulary=seen_vocabulary(), count=3)
    assert len(rows) == 3
    vocabulary, seen = spec.load_vocabulary(), {category.name for category in seen_vocabulary()}
    for row, record in zip(rows, [spec.load()[index] for index in (0, 2, 3)], strict=True):
        assert [picture.title for picture in row.pictures] == ["Input", "Truth", "Prediction"]
        assert len({picture.pixels.shape for picture in row.pictures}) == 1
        names = {vocabulary[segment["category_id"]].name for segment in record["segments_info"]}
        assert set(row.marked) == names - seen
        segments = len(record["segments_info"])
        assert f"{100 * (segments - 1) / (segments - 0.5):.1f}" in row.caption  # all found but one, none invented


def test_image_quality_by_hand() -> None:
    """Derived by hand: nothing true and nothing predicted is no number, a missed segment is 0."""
    empty: dict[str, Any] = {"segments_info": []}
    one = {"segments_info": [{"category_id": 0, "iscrowd": 0}]}
    void, full = torch.zeros(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.int64)
    assert math.isnan(image_quality(empty, empty, (void, void), 1))
    assert image_quality(one, empty, (full, void), 1) == 0
    assert image_quality(one, one, (full, full), 1) == 100
