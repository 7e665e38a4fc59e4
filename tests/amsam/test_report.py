"""Sections of a few-shot report: numbers over seeds by hand, and what is drawn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.data.image_masks import image_masks_spec
from amsam.report import BOX_COLOR, class_table, picture_row, scores_table, worst
from sam_common.structures import Category

PERSON = (Category("person", ("person",)),)


def test_tables() -> None:
    """A row for each answer, a column for each metric; a class that nobody measured is no number."""
    seeds = [{"Dice": d, "IoU": d / 2, "Dice_64": d, "Dice-a": d, "Dice-b": math.nan} for d in (40.0, 60.0)]
    (row,) = scores_table({"ours": seeds}, "").rows
    assert row[0] == "ours" and row[1] == (50, pytest.approx(math.sqrt(200))) and row[2][0] == 25
    first, second = class_table(seeds, ["a", "b"]).rows
    assert first[1][0] == 50 and math.isnan(second[1][0])


def test_the_worst_images() -> None:
    """By mean Dice over their classes; those without a Dice are no mistakes to show."""
    scores = {
        "good": {"Dice a": 0.9, "Dice b": math.nan},
        "bad": {"Dice a": 0.1, "Dice b": 0.3},
        "nothing": {"Dice a": math.nan, "Dice b": math.nan},
    }
    assert worst(scores, 5) == ["bad", "good"] and worst(scores, 1) == ["bad"]


@pytest.mark.parametrize("box", [[8.0, 8, 24, 24], [0.0, 0, 64, 48]])
def test_three_pictures_with_the_box(tmp_path: Path, box: list[float]) -> None:
    """Its corner is drawn in each, also where it is the whole image; truth and prediction tint other pixels."""
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:20] = 255
    for role, pixels in (("images", np.full((48, 64, 3), 90, np.uint8)), ("masks", mask)):
        (tmp_path / role).mkdir()
        Image.fromarray(pixels).save(tmp_path / role / "a.png")
    (record,) = image_masks_spec("mine", images=tmp_path / "images", masks=tmp_path / "masks").load()
    scores = {"no_box": float(box[0] == 0), "Dice person": 0.0}
    row = picture_row(record, torch.tensor([box]), torch.zeros(48, 64, dtype=torch.int64), PERSON, scores)
    entry, truth, prediction = (picture.pixels for picture in row.pictures)
    scale = entry.shape[0] // 48
    for pixels in (entry, truth, prediction):
        x, y = (int(value * scale) for value in box[:2])
        corner = pixels[y : y + 2, x : x + 2].reshape(-1, 3)
        assert (np.abs(corner.astype(int) - BOX_COLOR).sum(1) < 30).any()
    inside = (slice(12 * scale, 14 * scale), slice(12 * scale, 14 * scale))
    assert (truth[inside] != entry[inside]).any() and (prediction[inside] == entry[inside]).all()
    assert "Dice 0.0" in row.caption and ("no box was found" in row.caption) == (box[0] == 0)
