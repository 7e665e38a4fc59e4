"""From a record with a mask to the input of a few-shot model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.data.image_masks import image_masks_spec
from amsam.data.mapper import FewShotMapper
from sam_common.boxes.boxes import Boxes, no_boxes


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    """An image of 12×8 pixels with an object at columns 3..6, rows 2..4."""
    mask = np.zeros((8, 12), np.uint8)
    mask[2:5, 3:7] = 255
    for folder, pixels in (("images", np.full((8, 12, 3), 9, np.uint8)), ("masks", mask)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    (found,) = image_masks_spec("mine", images=tmp_path / "images", masks=tmp_path / "masks").load()
    return found


def test_the_true_box_is_that_of_the_mask(record: dict[str, Any]) -> None:
    """By hand: [3, 2, 7, 5]; labels in training only; the level of the record goes along."""
    item = FewShotMapper(training=True)(record | {"level": 2})
    assert item["boxes"].tolist() == [[3, 2, 7, 5]] and item["box_found"] and item["level"] == 2
    assert item["labels"].sum() == 12 and item["image"].shape == (3, 8, 12)
    assert "labels" not in FewShotMapper(training=False)(record)


def test_jitter_is_the_images_own(record: dict[str, Any]) -> None:
    """It moves the box, and every epoch in the same way, so what is frozen may be computed once."""
    mapper = FewShotMapper(training=True, jitter=0.3)
    assert torch.equal(mapper(record, seed=1)["boxes"], mapper(record, seed=2)["boxes"])
    assert mapper(record)["boxes"].tolist() != [[3, 2, 7, 5]]


def test_a_mask_without_an_object_prompts_with_the_whole_image(record: dict[str, Any]) -> None:
    """All background: the box of the image, and it is told that none was found."""
    Image.fromarray(np.zeros((8, 12), np.uint8)).save(record["mask_file_name"])
    item = FewShotMapper(training=True)(record)
    assert item["boxes"].tolist() == [[0, 0, 12, 8]] and not item["box_found"]


@pytest.mark.parametrize(
    ("found", "boxes", "any_found"),
    [
        (Boxes(torch.tensor([[0.0, 0, 2, 2], [1, 1, 9, 7]]), torch.tensor([0.1, 0.8])), [[1, 1, 9, 7]], True),
        (no_boxes(), [[0, 0, 12, 8]], False),
    ],
)
def test_a_detector_is_asked_with_the_image(
    record: dict[str, Any], found: Boxes, boxes: list[list[float]], any_found: bool
) -> None:
    """Its best box prompts the model; where it finds nothing, the whole image does."""
    asked = []

    def source(of: dict[str, Any], image: torch.Tensor) -> Boxes:
        asked.append((of["image_id"], tuple(image.shape)))
        return found

    item = FewShotMapper(training=False, box_source=source)(record)
    assert item["boxes"].tolist() == boxes and item["box_found"] == any_found and asked == [("a", (3, 8, 12))]
