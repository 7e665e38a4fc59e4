"""AM-SAM's loss, at both levels:

    L = 0.2 · cross-entropy + 0.8 · Dice,    Dice = mean over classes of 1 - (2 Σ p t + s) / (Σ p² + Σ t² + s)

with p the softmax of the logits, t the classes one-hot, sums over the pixels of the batch, and s = 1e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CROSS_ENTROPY_WEIGHT, DICE_WEIGHT = 0.2, 0.8
SMOOTH = 1e-5


def dice_loss(probabilities: Tensor, one_hot: Tensor) -> Tensor:
    """Mean over the classes, the background's included; both [B, K+1, H, W]."""
    dims = (0, 2, 3)
    overlap = (probabilities * one_hot).sum(dims)
    total = probabilities.square().sum(dims) + one_hot.square().sum(dims)
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def few_shot_losses(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """`loss_cross_entropy` and `loss_dice`, weighted, to be added up.

    Args:
        logits: [B, K+1, H, W], background first.
        labels: [B, H, W] int64, 0 … K.
    """
    one_hot = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    return {
        "loss_cross_entropy": CROSS_ENTROPY_WEIGHT * F.cross_entropy(logits, labels),
        "loss_dice": DICE_WEIGHT * dice_loss(torch.softmax(logits, 1), one_hot),
    }
