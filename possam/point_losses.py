"""Mask losses on points instead of all pixels: where to look, reading maps there, and the dice loss of what is read.

PointRend, arXiv 1912.08193, Section 3.1 (training): of k·n random points the β·n most uncertain ones, and (1 - β)·n
more random ones; used for mask losses by Mask2Former, arXiv 2112.01527. Symbols: k `oversample_ratio`,
β `importance_ratio`, n `num_points`; the uncertainty of a mask logit is -|logit|.

Points are (x, y) in [0, 1] × [0, 1]: (0, 0) is the upper left corner of the upper left pixel, (1, 1) the lower right
corner of the lower right one, so one point means the same place in maps of any resolution.

The dice loss is overlap relative to size, so small masks count as much as large ones:

    1 - (2 Σ p t + 1) / (Σ p + Σ t + 1)        p = sigmoid(`logits`), t `targets`

V-Net, arXiv 1606.04797, with probabilities not squared and 1 added on both sides of the fraction, as in DETR and
Mask2Former; two empty masks lose 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def point_sample(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps at points; beyond the centres of the border pixels values fade to 0, as in PointRend.

    Args:
        maps: [N, C, H, W] floating point.
        points: [N, P, 2] (x, y) in [0, 1].

    Returns:
        [N, C, P].
    """
    return F.grid_sample(maps, 2 * points.unsqueeze(2) - 1, mode="bilinear", align_corners=False).squeeze(3)


@torch.no_grad()
def uncertain_points(
    logits: Tensor,
    num_points: int,
    *,
    oversample_ratio: float = 3.0,
    importance_ratio: float = 0.75,
    generator: torch.Generator,
) -> Tensor:
    """Random points that favour the places where a mask is undecided.

    The candidates are drawn once for every row and shared by its masks [ours]: each mask still chooses its own among
    them, the masks' order changes nothing, and there are C times fewer random numbers to draw.

    Args:
        logits: [N, C, H, W] mask logits of C masks in each of N rows.
        num_points: n, how many points each mask gets.
        oversample_ratio: k ≥ 1, candidates per point.
        importance_ratio: β in [0, 1], the share of points that are chosen for their uncertainty.
        generator: source of all randomness, on the device of `logits`.

    Returns:
        [N, C, n, 2] (x, y) in [0, 1].
    """
    rows, masks = logits.shape[:2]
    num_important = int(importance_ratio * num_points)
    num_candidates = int(oversample_ratio * num_points)
    drawn = torch.rand(
        (rows, num_candidates + num_points - num_important, 2), generator=generator, device=logits.device
    )
    candidates, others = drawn.split([num_candidates, num_points - num_important], dim=1)
    uncertainty = -point_sample(logits, candidates.to(logits.dtype)).abs()
    chosen = uncertainty.topk(num_important, dim=-1).indices  # [N, C, β n]
    important = candidates.unsqueeze(1).expand(-1, masks, -1, -1).gather(2, chosen.unsqueeze(-1).expand(-1, -1, -1, 2))
    return torch.cat([important, others.unsqueeze(1).expand(-1, masks, -1, -1)], dim=2)


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
