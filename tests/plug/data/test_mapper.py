"""The amodal mapper: what goes to the model lies where the truth lies, and draws do not depend on grouping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from plug.data.annotations import group_instances
from plug.data.coco_amodal import coco_amodal_spec
from plug.data.mapper import AmodalMapper, match_greedily, segmentation_iou
from sam_common.boxes.boxes import Boxes, tight_boxes
from sam_common.data.images import read_image
from sam_common.errors import UserError
from sam_common.masks.rle import as_rle, encode_mask
from tests.support import amodal_trees as trees

SEEDS = range(12)
VISIBLE_BOXES = [[1, 1, 3, 4], [3, 1, 6, 5]]


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    trees.write_image(tmp_path / "five.png")
    path = trees.write_json(tmp_path / "a.json", trees.content("kins"))
    return coco_amodal_spec("mine", json_file=path, images=tmp_path).load()[0]


def test_training(record: dict[str, Any]) -> None:
    """Derived by hand, and an invariant: either as annotated or all mirrored; boxes stay tight around the masks."""
    mapper = AmodalMapper(training=True, flip=True)
    mirrored = []
    for seed in SEEDS:
        item = mapper(record, seed)
        flipped = bool(item["image"][0, 0, -1] > 100)  # the picture is red on its left half
        move = (lambda layers: layers.flip(-1)) if flipped else (lambda layers: layers)
        assert torch.equal(item["image"], move(read_image(record["file_name"])))
        assert torch.equal(item["visible_masks"], move(trees.VISIBLE))
        assert torch.equal(item["amodal_masks"], move(trees.AMODAL))
        assert torch.equal(item["boxes"], tight_boxes(item["visible_masks"]))
        assert item["boxes"].dtype == torch.float32 and item["image"].dtype == torch.uint8
        assert [item[key] for key in ("height", "width", "image_id", "file_name")] == [6, 8, 5, record["file_name"]]
        mirrored.append(flipped)
    assert set(mirrored) == {True, False}
    assert not any(AmodalMapper(training=True)(record, seed)["image"][0, 0, -1] > 100 for seed in SEEDS)


def test_draws_are_keyed_by_the_object(record: dict[str, Any]) -> None:
    """Invariant: alone in its group or beside others, an object has the same box and the same seed in an iteration;
    other objects and other iterations have others."""
    mapper = AmodalMapper(training=True, flip=True, jitter=0.2)
    together = mapper(record, 3)
    alone = [mapper(group, 3) for group in group_instances([record], 1)]
    assert torch.equal(torch.cat([item["boxes"] for item in alone]), together["boxes"])
    assert [seed for item in alone for seed in item["seeds"]] == together["seeds"]
    assert len({*together["seeds"], *mapper(record, 4)["seeds"]}) == 4
    assert not torch.equal(together["boxes"], mapper(record, 4)["boxes"])


@pytest.mark.parametrize("training", [True, False])
def test_jitter(training: bool, record: dict[str, Any]) -> None:
    """Invariant: each edge moves, by at most that fraction of the side, and stays inside the image."""
    exact = torch.tensor(VISIBLE_BOXES, dtype=torch.float32)
    extent = (exact[:, 2:] - exact[:, :2]).repeat(1, 2)
    for seed in SEEDS:
        boxes = AmodalMapper(training=training, jitter=0.1)(record, seed)["boxes"]
        assert ((boxes - exact).abs() <= 0.1 * extent + 1e-5).all() and (boxes != exact).any(1).all()
        assert (boxes >= 0).all() and (boxes <= torch.tensor([8, 6, 8, 6])).all()


def test_testing_with_true_boxes(record: dict[str, Any]) -> None:
    """Derived by hand: never mirrored, every box with the object that it is of."""
    item = AmodalMapper(training=False, flip=True)(record, 1)
    assert item["boxes"].tolist() == VISIBLE_BOXES
    assert item["amodal_boxes"].tolist() == [[1, 1, 5, 4], [3, 1, 6, 5]]
    assert item["annotation_ids"] == [11, 12] and item["category_ids"] == [0, 1] and item["box_scores"] == [1.0, 1.0]
    assert torch.equal(item["image"], read_image(record["file_name"]))
    assert not {"seeds", "visible_masks", "amodal_masks"} & item.keys()


def test_an_image_without_objects(record: dict[str, Any]) -> None:
    """Edge case: n = 0, in every list."""
    item = AmodalMapper(training=False)(record | {"annotations": []})
    assert item["boxes"].shape == item["amodal_boxes"].shape == (0, 4)
    assert item["annotation_ids"] == item["category_ids"] == item["box_scores"] == []


def found(boxes: list[list[float]], scores: list[float], masks: list[Any] | None = None) -> Boxes:
    return Boxes(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), masks=masks)


def test_predicted_boxes(record: dict[str, Any]) -> None:
    """Derived by hand: the better of two boxes on object 2 has it (IoU 1 and 3/4), object 1 is missed, a box of
    nothing has none; order, boxes and scores are the detector's, and nothing is moved."""
    boxes = [[3.0, 1, 6, 4], [0, 5, 2, 6], [3, 1, 6, 5]]
    asked = []

    def source(record: dict[str, Any], image: torch.Tensor) -> Any:
        asked.append((record["image_id"], image.shape))
        return found(boxes, [0.5, 0.9, 0.75])

    item = AmodalMapper(training=False, jitter=0.3, box_source=source)(record)
    assert asked == [(5, (3, 6, 8))]
    assert item["boxes"].tolist() == boxes and item["box_scores"] == [0.5, pytest.approx(0.9), 0.75]
    assert item["annotation_ids"] == [None, None, 12] and item["category_ids"] == [None, None, 1]
    assert item["amodal_boxes"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [3, 1, 6, 5]]
    strict = AmodalMapper(training=False, box_source=lambda *_: found(boxes[:1], [0.5]), match_iou=0.8)
    assert strict(record)["annotation_ids"] == [None]


def test_predicted_masks_decide(record: dict[str, Any]) -> None:
    """Derived by hand: where masks come with the boxes, their overlap with the visible masks counts, not the boxes'."""
    masks = [encode_mask(trees.VISIBLE[0])]
    item = AmodalMapper(training=False, box_source=lambda *_: found([VISIBLE_BOXES[1]], [1.0], masks))(record)
    assert item["annotation_ids"] == [11]
    damaged = AmodalMapper(training=False, box_source=lambda *_: found([VISIBLE_BOXES[1]], [1.0], [{"size": [9, 9]}]))
    with pytest.raises(UserError, match="the mask of a box in .*five.png: segmentation must be"):
        damaged(record)


def test_no_predicted_boxes(record: dict[str, Any]) -> None:
    """Edge cases: a detector that finds nothing; one that finds something where nothing is."""
    nothing = AmodalMapper(training=False, box_source=lambda *_: found([], []))(record)
    assert nothing["boxes"].shape == nothing["amodal_boxes"].shape == (0, 4) and nothing["annotation_ids"] == []
    empty = record | {"annotations": []}
    ghost = AmodalMapper(training=False, box_source=lambda *_: found([[0.0, 0, 1, 1]], [1.0]))(empty)
    assert ghost["annotation_ids"] == [None] and ghost["amodal_boxes"].tolist() == [[0, 0, 0, 0]]


def test_another_size(record: dict[str, Any]) -> None:
    """Error: an image that is not of the size that its annotation says."""
    with pytest.raises(UserError, match="is 8×6 upright, but its annotation says 9×6"):
        AmodalMapper(training=True)(record | {"width": 9})


def test_the_best_score_chooses_first() -> None:
    """By hand: the second box (0.9) takes object 0, so the first gets object 1, and the third nothing."""
    overlap = torch.tensor([[0.8, 0.6], [0.7, 0.1], [0.75, 0.65]])
    assert match_greedily(overlap, torch.tensor([0.8, 0.9, 0.1]), 0.5).tolist() == [1, 0, -1]


def test_overlap_at_the_threshold_counts_and_less_does_not() -> None:
    """IoU 0.5 is a match, 0.49 is none; a box without objects has none, nor objects without boxes."""
    assert match_greedily(torch.tensor([[0.5], [0.49]]), torch.tensor([0.1, 0.9]), 0.5).tolist() == [0, -1]
    assert match_greedily(torch.zeros(2, 0), torch.zeros(2), 0.5).tolist() == [-1, -1]
    assert match_greedily(torch.zeros(0, 3), torch.zeros(0), 0.5).tolist() == []


def test_iou_of_segmentations() -> None:
    """Derived by hand: two of six pixels in common, none, and no masks at all; polygons and run lengths mix."""
    left, right = [[0, 0, 2, 0, 2, 2, 0, 2]], as_rle([[1, 0, 3, 0, 3, 2, 1, 2]], 6, 8)
    overlap = segmentation_iou([left, [[5, 5, 6, 5, 6, 6, 5, 6]]], [right], 6, 8)
    assert overlap.tolist() == [[pytest.approx(1 / 3)], [0.0]]
    assert segmentation_iou([], [right], 6, 8).shape == (0, 1) and segmentation_iou([right], [], 6, 8).shape == (1, 0)
