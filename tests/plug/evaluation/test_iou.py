"""Amodal IoU by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from plug.evaluation.iou import amodal_counts, amodal_means, mask_iou, merge_visible


def square(left: int, right: int) -> Tensor:
    """Columns left … right - 1 of a 10×10 mask."""
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[:, :, left:right] = True
    return mask


def test_full_and_hidden_part_by_hand() -> None:
    """G is 8 columns, V the first 4 of them, A the first 6: full 6/8, of the hidden 4 columns 2 are found."""
    counts = amodal_counts(square(0, 6), square(0, 8), square(0, 4))
    assert counts.full.item() == pytest.approx(6 / 8) and counts.occluded.item() == pytest.approx(2 / 4)
    assert counts.strict.item() and counts.compat.item()


def test_a_visible_truth_as_the_answer_finds_nothing_hidden() -> None:
    """The baseline to print beside any result: occluded 0, full the visible share."""
    counts = amodal_counts(square(0, 4), square(0, 8), square(0, 4))
    assert counts.full.item() == 0.5 and counts.occluded.item() == 0


def test_the_two_readings_part_where_visible_sticks_out() -> None:
    """V = columns 2-6, G = columns 0-4: two columns are hidden, but the signed sum is 0, so only `strict` counts it."""
    counts = amodal_counts(square(0, 4), square(0, 4), square(2, 6))
    assert counts.strict.item() and not counts.compat.item()
    means = amodal_means(counts)
    assert means["mIoU_occ_strict"] == 100 and math.isnan(means["mIoU_occ_compat"]) and means["n_occ_compat"] == 0


def test_means_run_over_the_instances_they_are_of() -> None:
    """One hidden, one not: full over both, occluded over the one; without any instance there is no mean."""
    predicted, amodal = torch.cat((square(0, 6), square(0, 5))), torch.cat((square(0, 8), square(0, 10)))
    visible = torch.cat((square(0, 4), square(0, 10)))
    means = amodal_means(amodal_counts(predicted, amodal, visible))
    assert means["mIoU_full"] == pytest.approx(100 * (6 / 8 + 5 / 10) / 2) and means["n"] == 2
    assert means["mIoU_occ_strict"] == means["mIoU_occ_compat"] == pytest.approx(50) and means["n_occ_strict"] == 1
    assert math.isnan(amodal_means(amodal_counts(*[torch.zeros(0, 4, 4, dtype=torch.bool)] * 3))["mIoU_full"])


def test_empty_masks_and_merging() -> None:
    """Two empty masks have IoU 0; merging adds what is seen."""
    empty = square(0, 0)
    assert mask_iou(empty, empty).item() == 0
    assert torch.equal(merge_visible(square(4, 8), square(0, 5)), square(0, 8))
