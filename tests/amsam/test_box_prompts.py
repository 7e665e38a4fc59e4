"""Which boxes prompt a model."""

from __future__ import annotations

import pytest
import torch

from amsam.box_prompts import select_boxes
from sam_common.boxes.boxes import Boxes, no_boxes

FOUND = Boxes(
    torch.tensor([[1.0, 2, 5, 6], [3, 0, 9, 4], [0, 0, 2, 2]]), torch.tensor([0.5, 0.9, 0.7]), ["cat", "dog", "cat"]
)


@pytest.mark.parametrize(
    ("policy", "classes", "expected"),
    [
        ("top1", (), [[3, 0, 9, 4]]),
        ("top1", ("cat",), [[0, 0, 2, 2]]),
        ("union", (), [[0, 0, 9, 6]]),
        ("union", ("cat",), [[0, 0, 5, 6]]),
        ("all", ("cat",), [[1, 2, 5, 6], [0, 0, 2, 2]]),
    ],
)
def test_policies(policy: str, classes: tuple[str, ...], expected: list[list[float]]) -> None:
    """By hand: the best, the hull and all, of every class and of one."""
    boxes, found = select_boxes(FOUND, policy, (10, 20), classes=classes)
    assert boxes.tolist() == expected and found


@pytest.mark.parametrize("boxes", [no_boxes(), FOUND])
def test_without_a_box_it_is_the_whole_image(boxes: Boxes) -> None:
    """Nothing found, or nothing of the class: [0, 0, width, height], and it says so."""
    assert select_boxes(boxes, "top1", (10, 20), classes=("horse",))[0].tolist() == [[0, 0, 20, 10]]
    assert not select_boxes(boxes, "all", (10, 20), classes=("horse",))[1]


def test_none_asks_for_no_box_and_misses_none() -> None:
    """No boxes prompt the model, and no image counts as one in which nothing was found."""
    boxes, found = select_boxes(FOUND, "none", (10, 20))
    assert boxes.shape == (0, 4) and found


def test_boxes_without_classes_are_of_every_class() -> None:
    """A file of bare boxes passes any whitelist."""
    bare = Boxes(FOUND.boxes, FOUND.scores)
    assert select_boxes(bare, "top1", (10, 20), classes=("horse",))[0].tolist() == [[3, 0, 9, 4]]
