"""Dice loss: 1 - (2 Σ p t + 1) / (Σ p + Σ t + 1), overlap relative to size, so small masks count as much as large ones.

V-Net, arXiv 1606.04797, with probabilities not squared and 1 added on both sides of the fraction, as in DETR and
Mask2Former; two empty masks lose 0. Symbols: p = sigmoid(`logits`), t `targets`.
"""

from __future__ import annotations

from torch import Tensor


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of each mask with its target.

    Args:
        logits: [..., P] mask logits at P points or pixels.
        targets: [..., P] in [0, 1] at the same points.

    Returns:
        [...] losses in [0, 1].
    """
    probs = logits.sigmoid()
    overlap = (probs * targets).sum(dim=-1)
    return 1 - (2 * overlap + 1) / (probs.sum(dim=-1) + targets.sum(dim=-1) + 1)


def pairwise_dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Dice loss of every mask with every target.

    Args:
        logits: [..., Q, P] mask logits at P points.
        targets: [..., T, P] in [0, 1] at the same points.

    Returns:
        [..., Q, T] losses in [0, 1].
    """
    probs = logits.sigmoid()
    overlap = probs @ targets.transpose(-2, -1)
    return 1 - (2 * overlap + 1) / (probs.sum(dim=-1).unsqueeze(-1) + targets.sum(dim=-1).unsqueeze(-2) + 1)
