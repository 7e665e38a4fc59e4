"""Boxes as prompts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_common.boxes.boxes import (
    Boxes,
    box_fault,
    jitter_boxes,
    keep_usable,
    no_boxes,
    tight_boxes,
    xywh,
)


def test_boxes_are_tight():
    """By hand: one pixel, a full image, a ring with a hole, nothing; of 0 and 1 likewise; as COCO has them."""
    masks = torch.zeros(4, 5, 7, dtype=torch.bool)
    masks[0, 3, 6] = True
    masks[1] = True
    masks[2, 1:4, 2:6] = True
    masks[2, 2, 3:5] = False
    assert tight_boxes(masks).tolist() == [[6, 3, 7, 4], [0, 0, 7, 5], [2, 1, 6, 4], [0, 0, 0, 0]]
    assert torch.equal(tight_boxes(masks.float()), tight_boxes(masks)) and tight_boxes(masks[:0]).shape == (0, 4)
    assert xywh(tight_boxes(masks)[2].tolist()) == [2, 1, 4, 3]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 10),
    st.integers(1, 10),
    st.floats(0, 0.49),
    st.integers(0, 2**32),
)
def test_jittered_boxes_stay_boxes_of_the_image(x: int, y: int, w: int, h: int, amount: float, seed: int) -> None:
    """No edge moves further than allowed, none leaves the image, none crosses its opposite; the seed decides."""
    boxes = torch.tensor([[x, y, min(x + w, 10), min(y + h, 10)]], dtype=torch.float32)

    def moved() -> torch.Tensor:
        return jitter_boxes(boxes, amount, torch.Generator().manual_seed(seed), (10, 10))

    first = moved()
    assert torch.equal(first, moved())
    assert (first[:, :2] >= 0).all() and (first[:, 2:] <= 10).all() and (first[:, 2:] - first[:, :2] >= 1 - 1e-5).all()
    extent = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    assert ((first - boxes).abs() <= (amount * extent).clamp(min=1) + 1e-5).all()


def test_no_jitter_is_no_change() -> None:
    """Amount 0 draws nothing, so a generator goes on as it was."""
    generator = torch.Generator().manual_seed(3)
    boxes, state = torch.rand(2, 4), generator.get_state()
    assert jitter_boxes(boxes, 0.0, generator, (5, 5)) is boxes and torch.equal(generator.get_state(), state)


NAN = float("nan")


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((0, 0, 1, 1), ""),
        ((-5, -5, 0.5, 0.5), ""),
        ((NAN, 0, 1, 1), "no number"),
        ((0, 0, float("inf"), 1), "no number"),
        ((3, 0, 1, 1), "x1 < x0"),
        ((0, 3, 1, 1), "y1 < y0"),
        ((2, 2, 2, 5), "no area"),
        ((8, 0, 9, 1), "outside the image of 8 × 6 pixels"),
        ((-2, 0, 0, 1), "outside"),
        ((0, 6, 1, 7), "outside"),
    ],
)
def test_faults_of_boxes(box: tuple[float, ...], fault: str) -> None:
    """By hand, in an image 8 wide and 6 high: a box that touches its edge from outside shows no pixel of it."""
    assert (fault in box_fault(box, (6, 8))) and bool(box_fault(box, (6, 8))) == bool(fault)


def test_usable_boxes_are_kept_with_what_belongs_to_them() -> None:
    """By hand: of three boxes the NaN and the outer one go; the rest keeps its score and word, and is clipped."""
    boxes = torch.tensor([[NAN, 0, 1, 1], [-3, 2, 4, 99], [9, 9, 10, 10]])
    found = Boxes(boxes, torch.tensor([0.1, 0.2, 0.3]), ["a", "b", "c"], [{}, {"size": 1}, {}])
    kept, faults = keep_usable(found, (6, 8))
    assert kept.boxes.tolist() == [[0, 2, 4, 6]] and kept.scores.tolist() == pytest.approx([0.2])
    assert kept.categories == ["b"] and kept.masks == [{"size": 1}] and sum(faults.values()) == 2
    assert len(keep_usable(no_boxes(), (6, 8))[0]) == 0
