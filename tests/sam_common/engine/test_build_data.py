"""What few-shot trainings are given: shots that show something, a validation that looks for its boxes once, files of
boxes for whole folders."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.data.image_masks import image_masks_spec
from detectron2_sam.methods import full_cfg
from sam_common.boxes import detectors
from sam_common.boxes.boxes import Boxes
from sam_common.config import CfgNode
from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine import build_data
from sam_common.engine.build_data import training_set
from sam_common.engine.build_evaluation import build_validation
from sam_common.errors import UserError


def folder(root: Path, *values: int) -> DatasetSpec:
    """Images 0, 1, … of 8×8 pixels, with a corner of these values in their masks; classes 1 "a" and 2 "b"."""
    for stem, value in enumerate(values):
        for role, pixels in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", np.zeros((8, 8), np.uint8))):
            (root / role).mkdir(exist_ok=True)
            if role == "masks":
                pixels[:4, :4] = value
            Image.fromarray(pixels).save(root / role / f"{stem}.png")
    (root / "classes.txt").write_text("a, b")
    return image_masks_spec("mine", images=root / "images", masks=root / "masks", classes=root / "classes.txt")


class Undecided(torch.nn.Module):
    """Finds both classes and the background equally likely."""

    outputs = frozenset({"few_shot"})

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
        return [{"few_shot": torch.ones(3, 8, 8) / 3} for _ in batch]


def config(*options: object) -> CfgNode:
    """For the two classes of `folder`."""
    cfg = full_cfg()
    cfg.merge_from_list([str(word) for word in ("MODEL.AMSAM.NUM_CLASSES", 2, *options)])
    return cfg


def test_shots_that_show_nothing_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One empty shot, and a class that a half lacks: warnings with names; the training goes on."""
    with caplog.at_level(logging.WARNING):
        records, _ = training_set(config(), [folder(tmp_path, 1, 0, 2, 1)])
    assert [record["level"] for record in records] == [1, 1, 2, 2]
    assert [record.message for record in caplog.records] == [
        "shots whose masks show nothing: 1",
        "half 1 of the shots, which teaches the weights, does not show b (0, 1)",
    ]


def test_half_a_training_without_an_object_is_refused(tmp_path: Path) -> None:
    """All masks of a half are background (or unknown): one line with their names, before anything is trained."""
    with pytest.raises(UserError, match=r"half 2 of the shots.*the masks of 2, 3 are all background.*SHOTS_SEED"):
        training_set(config(), [folder(tmp_path, 1, 2, 0, 255)])


def test_values_and_sizes_are_looked_at_before_the_training(tmp_path: Path) -> None:
    """A value that is no class, a mask of another shape: refused with the file's name."""
    with pytest.raises(UserError, match=r"2\.png has pixels of the value 7; a mask of 2 classes has 0 to 2"):
        training_set(config(), [folder(tmp_path, 1, 2, 7, 1)])
    spec = folder(tmp_path, 1, 2, 1, 1)
    Image.new("L", (8, 4)).save(tmp_path / "masks" / "3.png")
    with pytest.raises(UserError, match=r"3\.png is 8×4 but its image is 8×8"):
        training_set(config(), [spec])


def test_shots_that_are_tested_on_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One folder to learn from and to test on: a warning names the images; a part that leaves them out has none."""
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    spec = folder(tmp_path, 1, 2, 1, 2)
    (tmp_path / "names.txt").write_text("2\n3\n")
    catalog.register(replace(spec, name="whole"))
    catalog.register(image_masks_spec("part", **spec.files, names=tmp_path / "names.txt"))
    cfg = config("DATASETS.SHOTS", 2, "DATASETS.TEST", "('whole', 'part')")
    with caplog.at_level(logging.WARNING):
        training_set(cfg, [spec])
    told = [record.message for record in caplog.records if "tested on" in record.message]
    assert told == ["whole, which is tested on, holds shots that are learned from: 0, 1"]


def test_a_validation_looks_for_its_boxes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is evaluated: the detector sees each image of the second half once."""
    monkeypatch.setattr(detectors, "_MAKERS", dict(detectors._MAKERS))
    seen: Counter[str] = Counter()

    def detect(image: torch.Tensor) -> Boxes:
        seen["images"] += 1
        return Boxes(torch.tensor([[0.0, 0, 4, 4]]), torch.ones(1))

    detectors.register_detector("stub", lambda weights, device: detect)
    cfg = config("INPUT.BOXES.SOURCE", "stub", "OUTPUT_DIR", str(tmp_path / "run"))
    validate = build_validation(cfg, [folder(tmp_path, 1, 2, 1, 2)])
    assert validate is not None
    for _ in range(3):
        results = validate(Undecided(), contextlib.nullcontext(), lambda: False)
        assert results is not None and results["mine_validation"]["few_shot"]["n"] == 2
    assert seen["images"] == 2


def test_a_file_of_boxes_may_be_for_the_whole_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A part of the folder is tested with it and nothing is warned of; boxes of other folders are refused."""
    whole = folder(tmp_path, 1, 2, 1)
    (tmp_path / "names.txt").write_text("1")
    part = image_masks_spec("part", **whole.files, names=tmp_path / "names.txt")
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"image_id": str(i), "bbox": [0, 0, 4, 4]} for i in (0, 2)]))
    records, mapper = build_data.test_set(config("INPUT.BOXES.SOURCE", boxes), part)
    assert not mapper(records[0], 0)["box_found"] and not caplog.records
    boxes.write_text(json.dumps([{"image_id": "street", "bbox": [0, 0, 4, 4]}]))
    with pytest.raises(UserError, match=r"boxes\.json has no boxes for part"):
        build_data.test_set(config("INPUT.BOXES.SOURCE", boxes), part)
