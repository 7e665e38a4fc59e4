"""PLUG's training loss.

    L = Σ_{b ∈ branches} (BCE(ℓ_b, m_b) + L_p(ℓ_b, m_b)) + w BCE(ℓ_r, m_amodal)

    ℓ_b -> mask_logits[:, b]    ℓ_r -> refined_logits    L_p: `point_loss.py`    w -> refine_weight = 1 [ours]

What a branch learns, the visible or the amodal mask, is `BRANCHES`; a single branch learns the amodal one (Table 2).

Every term is a mean over all objects of the iteration, in whichever process and whichever part of its batch
(`SOLVER.ACCUMULATE`) they are; these hold different numbers of them. DDP averages gradients over the W processes, so
with N objects in all, the sum over the B objects at hand is divided by N / W.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plug.point_loss import choose_points, point_loss
from sam_common.layers.processes import mean_over_processes

BRANCHES = ("visible", "amodal")


class Criterion(nn.Module):
    """Args: points of the point loss, 0 without it (Table 2); w, 0 without a refine module."""

    def __init__(self, *, num_points: int = 256, refine_weight: float = 1.0) -> None:
        super().__init__()
        self.num_points = num_points
        self.refine_weight = refine_weight

    def forward(
        self,
        mask_logits: Tensor,
        uncertainty_maps: Tensor,
        refined_logits: Tensor,
        gt_masks: Tensor,
        seeds: Sequence[int],
        *,
        batch_count: int | None = None,
    ) -> dict[str, Tensor]:
        """Losses that only have to be added up. Computed in float32 under any autocast.

        Args:
            mask_logits, uncertainty_maps: [B, S, H, W], S the last S of `BRANCHES`.
            refined_logits: [B, 1, H, W].
            gt_masks: [B, 2, H, W] in [0, 1], visible and amodal.
            seeds: B 63-bit seeds; the points of a sample depend on nothing else.
            batch_count: objects that this process sees in the iteration; None: these B are all.

        Returns:
            `loss_visible`, `loss_visible_points` (with two branches), `loss_amodal`, `loss_amodal_points` (with points)
            and `loss_refined`.
        """
        losses: dict[str, Tensor] = {}
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for branch, name in enumerate(BRANCHES[-mask_logits.shape[1] :]):
            one = slice(branch, branch + 1)
            logits, doubt = mask_logits[:, one].float(), uncertainty_maps[:, one].float()
            truth = gt_masks[:, BRANCHES.index(name)][:, None]
            losses[f"loss_{name}"] = F.binary_cross_entropy_with_logits(logits, truth)
            if self.num_points:
                points = choose_points(doubt, generators, num_points=self.num_points)
                losses[f"loss_{name}_points"] = point_loss(logits, truth, doubt, points)
        bce = F.binary_cross_entropy_with_logits(refined_logits.float(), gt_masks[:, 1:])
        losses["loss_refined"] = self.refine_weight * bce
        count = torch.tensor(batch_count or len(seeds), dtype=torch.float64, device=mask_logits.device)
        share = (len(seeds) / mean_over_processes(count)).float()
        return {name: share * loss for name, loss in losses.items()}
