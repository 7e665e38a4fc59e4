"""Boxes as prompts."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_common.boxes import jitter_boxes, mask_box, match_boxes, match_greedily


def test_the_box_of_a_mask() -> None:
    """By hand: pixels 2..4 × 1..1 span x 2 to 5 and y 1 to 2; nothing has a box of zeros."""
    mask = torch.zeros(4, 8, dtype=torch.bool)
    assert mask_box(mask).tolist() == [0, 0, 0, 0]
    mask[1, 2:5] = True
    assert mask_box(mask).tolist() == [2, 1, 5, 2]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 10), st.integers(1, 10), st.floats(0, 0.49), st.integers())
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


def test_the_best_score_chooses_first() -> None:
    """By hand: the second box (0.9) takes object 0, so the first gets object 1, and the third nothing."""
    overlap = torch.tensor([[0.8, 0.6], [0.7, 0.1], [0.75, 0.65]])
    assert match_greedily(overlap, torch.tensor([0.8, 0.9, 0.1])).tolist() == [1, 0, -1]


def test_overlap_at_the_threshold_counts_and_less_does_not() -> None:
    """IoU 0.5 is a match, 0.49 is none; a box without objects has none, nor objects without boxes."""
    assert match_greedily(torch.tensor([[0.5], [0.49]]), torch.tensor([0.1, 0.9])).tolist() == [0, -1]
    assert match_greedily(torch.zeros(2, 0), torch.zeros(2)).tolist() == [-1, -1]
    assert match_greedily(torch.zeros(0, 3), torch.zeros(0)).tolist() == []


def test_boxes_are_matched_by_their_iou() -> None:
    """Equal boxes are one object, in any order; a box elsewhere is none."""
    objects = torch.tensor([[0.0, 0, 4, 4], [10, 10, 20, 20]])
    boxes = torch.tensor([[10.0, 10, 20, 20], [0, 0, 4, 4], [50, 50, 60, 60]])
    assert match_boxes(boxes, torch.tensor([0.5, 0.5, 0.5]), objects).tolist() == [1, 0, -1]
