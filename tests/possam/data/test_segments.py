"""Masks of any kind of truth: by hand, and through the mapper, where they move as the picture does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from possam.data.mapper import SegmentationMapper
from possam.data.segments import read_targets
from sam_common.errors import UserError
from sam_common.structures import Category
from tests.support.segments import read_segments

BASE = {"image_id": 1, "height": 4, "width": 6}
LEFT = [[0, 0, 3, 0, 3, 4, 0, 4]]
MIDDLE = {"size": [4, 6], "counts": "888"}  # columns 2 and 3: overlaps the left half
VOCABULARY = tuple(Category(name, (name,)) for name in ("cat", "dog"))


def _annotation(segmentation: object, category: int, crowd: int = 0) -> dict:
    return {"id": 1, "segmentation": segmentation, "category_id": category, "iscrowd": crowd, "bbox_mode": 1}


@pytest.fixture
def instances(tmp_path: Path) -> dict:
    """A dog on the left half (red 200 in the picture), a cat over its edge, a crowd, and a segment without pixels."""
    pixels = np.full((4, 6, 3), 50, np.uint8)
    pixels[:, :3, 0] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    annotations = [_annotation(LEFT, 1), _annotation(MIDDLE, 0), _annotation(LEFT, 0, 1), _annotation([], 1)]
    return {**BASE, "file_name": str(tmp_path / "a.png"), "annotations": annotations}


def test_instances_overlap(instances: dict) -> None:
    """Derived by hand: both masks hold the pixels they share; crowd and empty ones are there, and no targets."""
    classes, masks, crowd = read_segments(instances)
    assert classes.tolist() == [1, 0, 0, 1] and crowd.tolist() == [False, False, True, False]
    columns = [masks[index].any(0).nonzero().flatten().tolist() for index in range(4)]
    assert columns == [[0, 1, 2], [2, 3], [0, 1, 2], []] and masks.dtype == torch.bool and masks.shape == (4, 4, 6)
    classes, masks = read_targets(instances, lambda layer: layer[:, :, :2])
    assert classes.tolist() == [1] and masks.shape == (1, 4, 2) and masks.all()


def test_image_without_instances(instances: dict) -> None:
    """Edge case: no annotation is no target, at the size that `move` gives."""
    classes, masks = read_targets(instances | {"annotations": []}, lambda layer: layer[:, :2])
    assert classes.tolist() == [] and masks.shape == (0, 2, 6) and masks.dtype == torch.bool


@pytest.mark.parametrize(("void", "expected"), [(255, [(0, 8), (1, 12)]), (0, [(0, 12), (1, 12)])])
def test_label_map(tmp_path: Path, void: int, expected: list[tuple[int, int]]) -> None:
    """Derived by hand: each class that occurs is one segment, with void pixels and without."""
    pixels = np.zeros((4, 6), np.uint8)
    pixels[:, 3:], pixels[0, 0], pixels[1:4, 0] = 1, void, void
    Image.fromarray(pixels).save(tmp_path / "a.png")
    record = {**BASE, "sem_seg_file_name": str(tmp_path / "a.png"), "num_classes": 2, "ignore_label": 255}
    classes, masks, crowd = read_segments(record)
    assert list(zip(classes.tolist(), masks.sum((1, 2)).tolist(), strict=True)) == expected and not crowd.any()
    again = read_targets(record, lambda layer: layer)
    assert torch.equal(again[0], classes) and torch.equal(again[1], masks)


def test_label_map_of_void(tmp_path: Path) -> None:
    """Edge case: a label map that is void everywhere has no segment."""
    Image.new("L", (6, 4), 255).save(tmp_path / "a.png")
    record = {**BASE, "sem_seg_file_name": str(tmp_path / "a.png"), "num_classes": 2, "ignore_label": 255}
    classes, masks, _ = read_segments(record)
    assert len(classes) == 0 and masks.shape == (0, 4, 6)


def test_record_without_truth() -> None:
    """Error: an image alone cannot be trained on, and is named."""
    with pytest.raises(UserError, match=r"a\.png has no annotation"):
        read_segments({**BASE, "file_name": "a.png"})


@pytest.mark.parametrize("seed", range(10))
def test_picture_and_instances_move_together(instances: dict, seed: int) -> None:
    """Invariant: through scale, crop and flip the red of the picture stays on the dog, but for its edge."""
    mapper = SegmentationMapper(
        VOCABULARY,
        training=True,
        image_size=24,
        min_scale=1.5,
        max_scale=3.0,
        flip=True,
        color=False,
        min_size_test=4,
        max_size_test=6,
    )
    item = mapper(instances, seed)
    segments = item["segments"]
    assert set(segments.gt_classes.tolist()) <= {0, 1} and segments.gt_masks.shape[1:] == item["image"].shape[1:]
    dog = segments.gt_masks[segments.gt_classes == 1].any(0)
    assert ((item["image"][0] > 125) == dog).float().mean() >= 0.9
