"""Words must be readable and colours must not change from picture to picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_common.reporting.drawing import draw_panoptic, place_labels, segment_color
from sam_common.structures import Category

VOCABULARY = (Category("dog", ("dog",), True, 1), Category("grass", ("grass",), False, 2))


def _halves(height: int, width: int) -> np.ndarray:
    panoptic = np.ones((height, width), np.int32)
    panoptic[:, width // 2 :] = 2
    return panoptic


@pytest.mark.parametrize("size", [(427, 640), (20, 900), (900, 20), (1, 1), (3000, 4000)])
def test_words_lie_inside_the_picture(size: tuple[int, int]) -> None:
    """Invariant: at any image size, every box of a word is inside the picture and is not empty."""
    height, width = size
    labels = place_labels(_halves(height, width), {1: "dog", 2: "an uncommonly long name of a class"})
    assert labels
    for label in labels.values():
        x0, y0, x1, y1 = label.box
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


def test_words_do_not_overlap() -> None:
    """Invariant: 25 touching segments, each smaller than its word, still get 25 disjoint boxes."""
    panoptic = np.zeros((480, 640), np.int32)
    for index in range(25):
        y, x = 200 + 12 * (index // 5), 250 + 12 * (index % 5)
        panoptic[y : y + 12, x : x + 12] = index + 1
    labels = list(place_labels(panoptic, {i + 1: "person" for i in range(25)}).values())
    assert len(labels) == 25
    for i, first in enumerate(labels):
        for second in labels[:i]:
            (a0, b0, a1, b1), (c0, d0, c1, d1) = first.box, second.box
            assert a1 <= c0 or c1 <= a0 or b1 <= d0 or d1 <= b0


def test_word_of_a_large_segment_lies_on_it() -> None:
    """Derived by hand: with half of the picture to itself, a word is written within its half, without a leader."""
    labels = place_labels(_halves(400, 600), {1: "dog", 2: "grass"})
    assert labels[1].box[2] <= 300 and labels[2].box[0] >= 300
    assert labels[1].anchor is None and labels[2].anchor is None


def test_letters_grow_with_the_picture() -> None:
    """Invariant: the box of a word takes about the same share of a picture twice as wide and high."""
    small = place_labels(_halves(600, 800), {1: "dog"})[1].box
    large = place_labels(_halves(1200, 1600), {1: "dog"})[1].box
    ratio = (large[3] - large[1]) / (small[3] - small[1])
    assert ratio == pytest.approx(2, abs=0.2)


def test_colours_depend_on_class_and_instance_only() -> None:
    """Invariant: the same class has one colour in every picture; instances of a class differ; stuff is less vivid."""
    assert segment_color("dog", True, 0) == segment_color("dog", True, 0)
    assert len({segment_color("dog", True, instance) for instance in range(20)}) == 20
    thing, stuff = segment_color("dog", True), segment_color("dog", False)
    assert max(thing) - min(thing) > max(stuff) - min(stuff)


def test_small_images_are_enlarged_and_void_stays_as_it_was() -> None:
    """Edge case: a 100-pixel image is drawn five times as large; what no segment covers keeps its pixels."""
    image = np.full((100, 100, 3), 90, np.uint8)
    panoptic = np.zeros((100, 100), np.int32)
    panoptic[:40] = 7
    picture = draw_panoptic(image, panoptic, [{"id": 7, "category_id": 0}], VOCABULARY)
    assert picture.shape == (500, 500, 3)
    assert (picture[300:] == 90).all()
    assert not (picture[:100] == 90).all()


@pytest.mark.parametrize(("size", "drawn"), [((10, 9000), (4, 4096)), ((9000, 1), (4096, 1))])
def test_huge_images_are_drawn_smaller(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    """Derived by hand: the longer side is bounded by 4096 and the other follows, down to one pixel."""
    picture = draw_panoptic(np.zeros((*size, 3), np.uint8), _halves(*size), [{"id": 2, "category_id": 0}], VOCABULARY)
    assert picture.shape[:2] == drawn and picture[-1, -1].any()


def test_nothing_found_draws_the_image() -> None:
    """Edge case: no segments, or a segment without pixels, leaves the image as it is."""
    image = np.arange(500 * 500 * 3, dtype=np.uint8).reshape(500, 500, 3)
    empty = np.zeros((500, 500), np.int32)
    assert (draw_panoptic(image, empty, [], VOCABULARY) == image).all()
    assert (draw_panoptic(image, empty, [{"id": 3, "category_id": 0}], VOCABULARY) == image).all()


def test_draws_a_real_annotation(samples: Path) -> None:
    """Real input: every segment of a COCO panoptic image gets a word inside the picture."""
    folder = samples / "coco_panoptic"
    categories = json.loads((folder / "panoptic_coco_categories.json").read_text())
    annotation = json.loads((folder / "panoptic.json").read_text())["annotations"][0]
    vocabulary = tuple(Category(c["name"], (c["name"],), bool(c["isthing"]), c["id"]) for c in categories)
    index = {category.id: i for i, category in enumerate(vocabulary)}
    rgb = np.asarray(Image.open(folder / "panoptic" / annotation["file_name"]).convert("RGB"), np.int64)
    panoptic = rgb @ np.array([1, 256, 256**2])
    image = np.asarray(Image.open(folder / "images" / f"{annotation['image_id']:012d}.jpg").convert("RGB"))
    segments = [{"id": s["id"], "category_id": index[s["category_id"]]} for s in annotation["segments_info"]]
    assert draw_panoptic(image, panoptic, segments, vocabulary).shape == image.shape
    labels = place_labels(panoptic, {s["id"]: vocabulary[s["category_id"]].name for s in segments})
    assert set(labels) == {s["id"] for s in segments}
