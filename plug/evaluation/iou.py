"""IoU of amodal masks: of the whole object, and of its hidden part alone.

For each instance, in the frame of the whole image, with the predicted amodal mask A, the true one G and its true
visible part V:

    IoU_full = |A ∧ G| / |A ∨ G|            IoU_occ = |A ∧ ¬V ∧ G ∧ ¬V| / |(A ∧ ¬V) ∨ (G ∧ ¬V)|

mIoU_full is the mean over all instances, mIoU_occ over those that have a hidden part. Two readings of that are in use
and reported side by side:

    strict   the hidden part G ∧ ¬V has a pixel
    compat   Σ (G - V) > 0, summed with signs, as the published code of C2F-Seg counts: where V sticks out of G by as
             much as is hidden, the instance is left out

Masks of an instance may be disjoint and empty: the IoU of two empty masks is 0, as in the published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AmodalCounts:
    """What an instance adds to the means.

    Attributes:
        full, occluded: [N] IoU in [0, 1].
        strict, compat: [N] bool, whether the instance has a hidden part, in either reading.
    """

    full: Tensor
    occluded: Tensor
    strict: Tensor
    compat: Tensor


def mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of masks [N, H, W] bool, pair by pair: [N] float64; 0 where both are empty."""
    intersection = (first & second).flatten(1).sum(1).double()
    union = (first | second).flatten(1).sum(1).double()
    return intersection / union.clamp(min=1)


def amodal_counts(predicted: Tensor, amodal: Tensor, visible: Tensor) -> AmodalCounts:
    """The IoUs of N instances.

    Args:
        predicted: [N, H, W] bool, the predicted amodal masks.
        amodal, visible: [N, H, W] bool, the truth.
    """
    hidden = amodal & ~visible
    return AmodalCounts(
        full=mask_iou(predicted, amodal),
        occluded=mask_iou(predicted & ~visible, hidden),
        strict=hidden.flatten(1).any(1),
        compat=amodal.flatten(1).sum(1) > visible.flatten(1).sum(1),
    )


def merge_visible(predicted: Tensor, visible: Tensor) -> Tensor:
    """Predicted amodal masks [N, H, W] with the predicted visible ones added: what is seen belongs to the object."""
    return predicted | visible


def amodal_means(counts: AmodalCounts) -> dict[str, float]:
    """`mIoU_full`, and `mIoU_occ` in both readings with their numbers of instances; percentages, NaN without any."""
    means, numbers = {"mIoU_full": _mean(counts.full)}, {"n": float(len(counts.full))}
    for reading in ("strict", "compat"):
        chosen = counts.occluded[getattr(counts, reading)]
        means[f"mIoU_occ_{reading}"] = _mean(chosen)
        numbers[f"n_occ_{reading}"] = float(len(chosen))
    return means | numbers


def _mean(values: Tensor) -> float:
    return 100 * float(values.mean()) if len(values) else torch.nan
