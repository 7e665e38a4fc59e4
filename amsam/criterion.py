"""AM-SAM's loss, at both levels:

    L = 0.2 · cross-entropy + 0.8 · Dice,    Dice = mean over classes of 1 - (2 Σ p t + s) / (Σ p² + Σ t² + s)

with p the softmax of the logits, t the classes one-hot, sums over the pixels of the batch, and s = 1e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from amsam.data.image_masks import IGNORE

CROSS_ENTROPY_WEIGHT, DICE_WEIGHT = 0.2, 0.8
SMOOTH = 1e-5


def dice_loss(probabilities: Tensor, one_hot: Tensor) -> Tensor:
    """Mean over the classes, the background's included; both [B, K+1, H, W], zero where a pixel does not count."""
    pixels = (0, 2, 3)
    overlap = (probabilities * one_hot).sum(pixels)
    total = probabilities.square().sum(pixels) + one_hot.square().sum(pixels)
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def few_shot_losses(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """`loss_cross_entropy` and `loss_dice`, weighted, to be added up.

    Args:
        logits: [B, K+1, H, W], background first.
        labels: [B, H, W] int64, 0 … K; pixels of `IGNORE` do not count. Without any other both losses are 0.
    """
    logits, known = logits.float(), (labels != IGNORE)[:, None]
    classes = torch.arange(logits.shape[1], device=labels.device)[:, None, None]
    one_hot = (labels[:, None] == classes).to(logits.dtype)
    # torch's mean over no pixel is NaN
    cross_entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE) if known.any() else 0 * logits.sum()
    return {
        "loss_cross_entropy": CROSS_ENTROPY_WEIGHT * cross_entropy,
        "loss_dice": DICE_WEIGHT * dice_loss(logits.softmax(1) * known, one_hot),
    }
