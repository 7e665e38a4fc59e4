"""What is hidden must look hidden, at any size and on any ground."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as codec

from plug.drawing import draw_amodal


def _square(size: int, *, shown: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A square in the middle, of which the left part is visible."""
    amodal = np.zeros((size, size), bool)
    low, high = size // 4, size * 3 // 4
    amodal[low:high, low:high] = True
    visible = amodal.copy()
    visible[:, low + int(shown * (high - low)) :] = False
    return amodal, visible


@pytest.mark.parametrize("ground", [0, 255])
def test_hidden_part_is_hatched_and_visible_part_tinted(ground: int) -> None:
    """Derived by hand: away from the contours the visible half has one colour, the hidden half at least two, and the
    image around stays as it was; on black and on white."""
    amodal, visible = _square(480)
    image = np.full((480, 480, 3), ground, np.uint8)
    picture = draw_amodal(image, [amodal], [visible])
    tinted, hatched = picture[140:340, 140:220], picture[140:340, 260:340]
    assert len(np.unique(tinted.reshape(-1, 3), axis=0)) == 1 and (tinted != ground).any()
    assert len(np.unique(hatched.reshape(-1, 3), axis=0)) >= 2
    assert (picture[:110] == ground).all() and (image == ground).all()


def test_the_contour_of_what_is_hidden_is_dashed() -> None:
    """Invariant: the visible part has a line that is bright all along, the hidden one bright and dark by turns."""
    amodal, visible = _square(480)
    picture = draw_amodal(np.zeros((480, 480, 3), np.uint8), [amodal], [visible]).astype(int).sum(-1)
    solid, dashed = picture[140:340, 120], picture[140:340, 359]
    assert (solid > 250).all()
    assert np.count_nonzero(np.diff((dashed > 250).astype(int))) > 6


@pytest.mark.parametrize(
    ("size", "drawn"), [((1, 1), (480, 480)), ((64, 64), (512, 512)), ((5000, 2500), (4096, 2048))]
)
def test_any_size(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    """Edge cases: one pixel, a small image and a huge one: drawn at a size that can be looked at, the mask on it."""
    mask = np.ones(size, bool)
    picture = draw_amodal(np.zeros((*size, 3), np.uint8), [mask], [mask], boxes=np.array([[0, 0, size[1], size[0]]]))
    assert picture.shape[:2] == drawn and picture[drawn[0] // 2, drawn[1] // 2].any()


def test_objects_without_pixels_or_none_at_all() -> None:
    """Edge case: empty masks draw nothing but their box, no objects nothing."""
    image = np.random.default_rng(0).integers(0, 255, (500, 500, 3), np.uint8)
    empty = np.zeros((500, 500), bool)
    assert (draw_amodal(image, [], [], words=[]) == image).all()
    assert (draw_amodal(image, [empty], [empty], words=["x"]) == image).all()
    assert (draw_amodal(image, [empty], [empty], np.array([[10, 10, 20, 20]])) != image).any()


def test_masks_are_asked_for_once() -> None:
    """Invariant: masks may be made one after the other, each once: 200 objects stay cheap."""
    asked: list[int] = []

    def make(index: int) -> np.ndarray:
        asked.append(index)
        return amodal

    (amodal, visible), image, words = _square(64), np.zeros((64, 64, 3), np.uint8), ["a", "b", ""]
    picture = draw_amodal(image, map(make, range(3)), [visible] * 3, words=words)
    assert asked == [0, 1, 2] and (picture == draw_amodal(image, [amodal] * 3, [visible] * 3, words=words)).all()


def test_draws_a_real_annotation(samples: Path) -> None:
    """Real input: a COCOA image with words and boxes is drawn at its own size, and changes where objects are."""
    content = json.loads((samples / "cocoa" / "1.json").read_text())
    image = np.asarray(Image.open(samples / "cocoa" / "1.jpg").convert("RGB"))
    height, width = image.shape[:2]
    amodal = [
        codec.decode(codec.merge(codec.frPyObjects([region["segmentation"]], height, width))).astype(bool)
        for region in content["regions"]
    ]
    visible = [
        codec.decode(region["visible_mask"]).astype(bool) if "visible_mask" in region else mask
        for region, mask in zip(content["regions"], amodal, strict=True)
    ]
    picture = draw_amodal(image, amodal, visible, words=[region["name"] for region in content["regions"]])
    assert picture.shape == image.shape
    changed = (picture != image).any(-1)
    assert changed[np.any(amodal, axis=0)].mean() > 0.9
