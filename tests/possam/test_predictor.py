"""The way from an image file to a panoptic prediction, with a model that paints what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from possam.predictor import Predictor, coco_json, coco_segments, keep_confident, mask_size
from sam_common.errors import UserError
from sam_common.structures import Category, Instances

VOCABULARY = (Category("dog", ("dog", "puppy"), True, 18), Category("sky", ("sky",), False, 187))


class TopHalf(nn.Module):
    """Sees one dog in the upper half of every image, and remembers its inputs."""

    training_vocabulary = VOCABULARY

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.batch = batch
        ids = torch.zeros(batch[0]["height"], batch[0]["width"], dtype=torch.int32)
        ids[: len(ids) // 2] = 1
        masks = (ids == 1).expand(2, -1, -1)
        box = torch.tensor([0.0, 0, ids.shape[1], len(ids) // 2]).expand(2, 4)
        instances = Instances(tuple(ids.shape), masks, torch.tensor([0.5, 0.4]), torch.tensor([0, 0]), box)
        segments = [{"id": 1, "category_id": 0, "isthing": True, "score": 0.5}]
        return [{"panoptic_seg": (ids, segments), "instances": instances}]


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(TopHalf(), min_size=32, max_size=48)


def test_model_gets_the_test_size_and_the_original_size(predictor: Predictor) -> None:
    """Derived by hand: 100 × 200 pixels; the longer side is bounded by 48, so 24 × 48; masks come at 100 × 200."""
    ids, _ = predictor(np.zeros((100, 200, 3), np.uint8), VOCABULARY)["panoptic_seg"]
    entry = predictor.model.batch[0]
    assert entry["image"].shape == (3, 24, 48) and entry["image"].dtype == torch.uint8
    assert (entry["height"], entry["width"]) == (100, 200) == tuple(ids.shape)
    assert entry["vocabulary"] == VOCABULARY


def test_array_tensor_and_file_give_the_same_input(predictor: Predictor, tmp_path: Path) -> None:
    """Equality: the three ways to give an image end in the same pixels."""
    array = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    seen = []
    for image in (array, torch.from_numpy(array).permute(2, 0, 1), tmp_path / "a.png"):
        predictor(image)
        seen.append(predictor.model.batch[0]["image"])
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_every_kind_of_picture_becomes_rgb(predictor: Predictor, tmp_path: Path, mode: str) -> None:
    """Edge case: greyscale, transparent, print and palette files are three channels to the model."""
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (40, 30), (200, 30, 30)).convert(mode).save(path)
    predictor(path)
    assert predictor.model.batch[0]["image"].shape[0] == 3


def test_orientation_of_the_camera_is_applied(predictor: Predictor, tmp_path: Path) -> None:
    """Edge case: EXIF orientation 6 turns a stored 40 × 30 picture into one 30 wide and 40 high."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    ids, _ = predictor(tmp_path / "a.jpg")["panoptic_seg"]
    assert tuple(ids.shape) == (40, 30)


def test_truncated_image_is_named(predictor: Predictor, tmp_path: Path) -> None:
    """Error: half a JPEG gives one line with its path, not a half-grey prediction."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half\.jpg") as caught:
        predictor(tmp_path / "half.jpg")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_wrong_arrays_are_refused(predictor: Predictor, image: np.ndarray) -> None:
    """Error: an array that is no uint8 RGB picture is refused with what it should be."""
    with pytest.raises(UserError, match="uint8 RGB"):
        predictor(image)


def test_words_default_to_those_of_the_training(predictor: Predictor) -> None:
    """Edge case: without a vocabulary the training's is used; an untrained model has none and says so."""
    predictor(np.zeros((4, 4, 3), np.uint8))
    assert predictor.model.batch[0]["vocabulary"] == VOCABULARY
    predictor.model.training_vocabulary = ()
    with pytest.raises(UserError, match="vocabulary"):
        predictor(np.zeros((4, 4, 3), np.uint8))


def test_masks_of_large_images_are_made_small_and_enlarged(predictor: Predictor) -> None:
    """Derived by hand: 100 × 400 pixels and room for 10,000 masks' pixels: made at 50 × 200, given back at 100 × 400,
    the dog in the upper half; a box grows with its mask; weak instances are dropped before."""
    predictor.max_mask_pixels = 10_000
    outputs = predictor(np.zeros((100, 400, 3), np.uint8), confidence_threshold=0.5)
    assert (predictor.model.batch[0]["height"], predictor.model.batch[0]["width"]) == (50, 200)
    ids, _ = outputs["panoptic_seg"]
    assert ids.shape == (100, 400) and (ids[:50] == 1).all() and not ids[50:].any()
    found = outputs["instances"]
    assert found.image_size == (100, 400) and found.scores.tolist() == [0.5]
    assert found.pred_masks[0, :50].all() and not found.pred_masks[0, 50:].any()
    assert found.pred_boxes.tolist() == [[0, 0, 400, 50]]


@pytest.mark.parametrize(
    ("size", "expected"), [((10, 10), (10, 10)), ((20, 20), (10, 10)), ((1, 400), (1, 200)), ((7, 15), (6, 14))]
)
def test_size_of_masks(size: tuple[int, int], expected: tuple[int, int]) -> None:
    """Derived by hand: at most 100 pixels, the shape kept, no side below 1 (then more pixels than 100 remain)."""
    assert mask_size(size, 100) == expected


def test_missing_weights_are_asked_for(tmp_path: Path) -> None:
    """Error: a configuration without trained weights does not predict with random ones by accident."""
    (tmp_path / "mine.yaml").write_text("MODEL: {DEVICE: cpu}")
    with pytest.raises(UserError, match=r"mine\.yaml names no trained weights"):
        Predictor.from_config(tmp_path / "mine.yaml")


def test_threshold_drops_segments() -> None:
    """Derived by hand: at 0.5 the segment of 0.4 goes and leaves void, the one of exactly 0.5 stays."""
    ids = torch.tensor([[1, 1, 2, 0]], dtype=torch.int32)
    segments = [{"id": 1, "category_id": 0, "score": 0.4}, {"id": 2, "category_id": 1, "score": 0.5}]
    kept_ids, kept = keep_confident((ids, segments), 0.5)
    assert kept_ids.tolist() == [[0, 0, 2, 0]] and kept_ids.dtype == torch.int32
    assert [segment["id"] for segment in kept] == [2]


def test_threshold_may_drop_everything() -> None:
    """Edge case: nothing left is an image of void."""
    ids, kept = keep_confident((torch.ones(2, 2, dtype=torch.int32), [{"id": 1, "score": 0.1}]), 1.0)
    assert not ids.any() and not kept


def test_coco_segments_by_hand() -> None:
    """Derived by hand: area, XYWH box and class id of an L-shaped segment; one without pixels is left out."""
    ids = torch.tensor([[0, 5, 0], [0, 5, 0], [0, 5, 5]], dtype=torch.int32)
    segments = [
        {"id": 5, "category_id": 0, "score": 0.123456},
        {"id": 6, "category_id": 1, "score": 0.9},
    ]
    (found,) = coco_segments((ids, segments), VOCABULARY)
    assert found == {
        "id": 5, "category_id": 18, "isthing": 1, "score": 0.1235, "area": 4, "bbox": [1, 0, 2, 3], "iscrowd": 0,
    }  # fmt: skip


def test_json_lists_the_classes() -> None:
    """Derived by hand: categories keep ids, kinds and synonyms."""
    categories = coco_json([], [], VOCABULARY)["categories"]
    assert categories[0] == {"id": 18, "name": "dog", "isthing": 1, "synonyms": ["dog", "puppy"]}
    assert categories[1]["isthing"] == 0
