"""Groups of instances, and the extent of masks read off their run lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plug.data.annotations import group_instances
from sam_common.boxes.boxes import mask_box
from sam_common.masks.coco_masks import as_rle, checked_segmentation, segmentation_extent, segmentation_iou
from sam_common.masks.rle import encode_mask


def record(name: str, count: int) -> dict[str, Any]:
    return {"image_id": name, "height": 6, "width": 8, "annotations": [{"id": place} for place in range(count)]}


def test_groups(caplog: pytest.LogCaptureFixture) -> None:
    """Invariant: every annotation once, in order, at most `size` together, groups of an image equal but for one."""
    records = [record("a", 9), record("b", 0), record("c", 8), record("d", 1), record("e", 17)]
    with caplog.at_level("INFO"):
        groups = group_instances(records, 8)
    sizes = [(group["image_id"], len(group["annotations"])) for group in groups]
    assert sizes == [("a", 4), ("a", 5), ("c", 8), ("d", 1), ("e", 5), ("e", 6), ("e", 6)]
    for entry in records:
        parts = [group["annotations"] for group in groups if group["image_id"] == entry["image_id"]]
        assert [item for part in parts for item in part] == entry["annotations"]
    assert "1 of 5 training images show no object" in caplog.text
    assert records[0]["annotations"] == record("a", 9)["annotations"]  # untouched


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (13, 7)])
def test_extent(size: tuple[int, int], density: float) -> None:
    """Equality with the decoded mask: its tight box and its pixels, of noise, of full and of empty masks."""
    for seed in range(5):
        mask = torch.rand(*size, generator=torch.Generator().manual_seed(seed)) < density
        box, area = segmentation_extent(encode_mask(mask), *size, "here")
        x0, y0, x1, y1 = mask_box(mask).tolist()
        assert (box, area) == ([x0, y0, x1 - x0, y1 - y0], mask.sum())


def test_extent_of_polygons_and_odd_runs() -> None:
    """Derived by hand: polygons, one beyond the image; runs of length zero inside the mask, which touch nothing."""
    assert segmentation_extent([[1, 1, 5, 1, 5, 4, 1, 4], [6, 0, 20, 0, 20, 2, 6, 2]], 6, 8, "here") == (
        [1, 0, 7, 4],
        16,
    )
    assert segmentation_extent([], 6, 8, "here") == ([0, 0, 0, 0], 0)
    odd = checked_segmentation({"size": [6, 8], "counts": [0, 0, 20, 2, 10, 0, 16]}, 6, 8, "here")
    assert segmentation_extent(odd, 6, 8, "here") == ([3, 2, 1, 2], 2)


def test_iou_of_segmentations() -> None:
    """Derived by hand: two of six pixels in common, none, and no masks at all; polygons and run lengths mix."""
    left, right = [[0, 0, 2, 0, 2, 2, 0, 2]], as_rle([[1, 0, 3, 0, 3, 2, 1, 2]], 6, 8)
    overlap = segmentation_iou([left, [[5, 5, 6, 5, 6, 6, 5, 6]]], [right], 6, 8)
    assert overlap.tolist() == [[pytest.approx(1 / 3)], [0.0]]
    assert segmentation_iou([], [right], 6, 8).shape == (0, 1) and segmentation_iou([right], [], 6, 8).shape == (1, 0)
