"""Point loss: supervision at the pixels of a mask that are most in doubt.

PLUG, Eq. 9-10, with PointRend's choice of points (Kirillov et al., arXiv 1912.08193). For each mask, nK pixels are
drawn; of these the cK with the greatest uncertainty and (1 - c)K others, drawn at random, make the set P, and

    L_p = 1 / K · Σ_{P} (α BCE(ℓ, m) + β u)

    n -> oversample_ratio = 4    K -> num_points = 256    c -> uncertain_ratio = 0.75    α = β = 0.1
    ℓ -> mask_logits    m -> gt_masks    u -> uncertainty_map

No gradient goes through the choice of points; one goes through u.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

ALPHA = BETA = 0.1


@torch.no_grad()
def choose_points(
    uncertainty_map: Tensor,
    generators: Sequence[Generator],
    *,
    num_points: int = 256,
    oversample_ratio: int = 4,
    uncertain_ratio: float = 0.75,
) -> Tensor:
    """The pixels of each mask that are supervised.

    Args:
        uncertainty_map: [B, 1, H, W], of at least `oversample_ratio · num_points` pixels.
        generators: one on the CPU for each mask; nothing else is random.

    Returns:
        [B, num_points] int64 indices into H·W, those of a mask all different; the most uncertain ones first.
    """
    pixels = uncertainty_map.flatten(1)
    num_uncertain = round(uncertain_ratio * num_points)
    drawn = [torch.randperm(pixels.shape[1], generator=g)[: oversample_ratio * num_points] for g in generators]
    candidates = torch.stack(drawn).to(pixels.device)  # [B, n·K], in random order
    order = pixels.gather(1, candidates).argsort(dim=1, descending=True, stable=True)
    uncertain = order[:, :num_uncertain]
    # The candidates are in random order, so the first ones among the others are a random choice of them.
    others = order[:, num_uncertain:].sort(dim=1).values[:, : num_points - num_uncertain]
    return candidates.gather(1, torch.cat((uncertain, others), dim=1))


def point_loss(mask_logits: Tensor, gt_masks: Tensor, uncertainty_map: Tensor, points: Tensor) -> Tensor:
    """L_p, the mean over a batch.

    Args:
        mask_logits, uncertainty_map: [B, 1, H, W].
        gt_masks: [B, 1, H, W] in [0, 1].
        points: [B, K] from `choose_points`.
    """
    logits, truth, doubt = (x.flatten(1).gather(1, points) for x in (mask_logits, gt_masks, uncertainty_map))
    return ALPHA * F.binary_cross_entropy_with_logits(logits, truth) + BETA * doubt.mean()
