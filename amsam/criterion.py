"""AM-SAM's loss, at both levels:

    L = 0.2 · cross-entropy + 0.8 · Dice,    Dice = mean over classes of 1 - (2 Σ p t + s) / (Σ p² + Σ t² + s)

with p the softmax of the logits, t the classes one-hot, sums over the pixels of the batch, and s = 1e-5.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

CROSS_ENTROPY_WEIGHT, DICE_WEIGHT = 0.2, 0.8
SMOOTH = 1e-5


def dice_loss(probabilities: Tensor, one_hot: Tensor) -> Tensor:
    """Mean over the classes, the background's included; both [P, K+1] at P pixels."""
    overlap = (probabilities * one_hot).sum(0)
    total = probabilities.square().sum(0) + one_hot.square().sum(0)
    return (1 - (2 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def few_shot_losses(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """`loss_cross_entropy` and `loss_dice`, weighted, to be added up.

    Args:
        logits: [B, K+1, H, W], background first.
        labels: [B, H, W] int64, 0 … K; pixels below 0 are not looked at.
    """
    known = labels >= 0
    logits, labels = logits.movedim(1, -1)[known].float(), labels[known]  # [P, K+1], [P]
    one_hot = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return {
        "loss_cross_entropy": CROSS_ENTROPY_WEIGHT * F.cross_entropy(logits, labels),
        "loss_dice": DICE_WEIGHT * dice_loss(logits.softmax(1), one_hot),
    }
