"""Which query answers for which ground-truth segment: the cheapest one-to-one assignment.

DETR, arXiv 2005.12872, Equation 1, with Mask2Former's costs (arXiv 2112.01527), which PosSAM (arXiv 2403.09620) keeps:

    cost(q, t) = λ_class · (-p_q(class of t)) + λ_bce · BCE(M_q, m_t) + λ_dice · dice(M_q, m_t)

Symbols: p softmax of `class_logits`; M `mask_logits`, m `gt_masks`; λ the weights. BCE and dice are taken at random
points that all queries and segments of an image share, and that are drawn anew for every prediction point.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from possam.point_losses import pairwise_dice_loss, point_sample

logger = logging.getLogger(__name__)

CLASS_WEIGHT, BCE_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0
"""λ of the header, of the costs as of the losses."""

NUM_POINTS = 12544
"""Points at which masks are compared, 112²."""

REPLACEMENT_COST = 1e9
"""What a cost that is not finite counts as: above any real one, and the solver stays exact beside it in float64."""


class HungarianMatcher(nn.Module):
    """Assigns every ground-truth segment of a batch to a query, at all prediction points at once.

    Args:
        class_weight, bce_weight, dice_weight: λ of the header.
        num_points: random points at which masks are compared.
    """

    def __init__(
        self,
        *,
        class_weight: float = CLASS_WEIGHT,
        bce_weight: float = BCE_WEIGHT,
        dice_weight: float = DICE_WEIGHT,
        num_points: int = NUM_POINTS,
    ) -> None:
        super().__init__()
        self.class_weight = class_weight
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.num_points = num_points

    @torch.no_grad()
    def forward(
        self,
        class_logits: Sequence[Tensor],
        mask_logits: Sequence[Tensor],
        gt_classes: Sequence[Tensor],
        gt_masks: Sequence[Tensor],
        generators: Sequence[torch.Generator],
        file_names: Sequence[str],
    ) -> Tensor:
        """Solves one assignment for each of P prediction points and B images. Computed in float32 under any autocast.

        Args:
            class_logits: P tensors [B, Q, C+1], void last.
            mask_logits: P tensors [B, Q, h, w].
            gt_classes: B tensors [T_b] int64 class indices; T_b may be 0, or more than Q.
            gt_masks: B float tensors [T_b, H, W] of 0 and 1; H × W need not be h × w.
            generators: B generators on the logits' device, one for each image.
            file_names: B names for the warning about costs that are not finite.

        Returns:
            [P, ΣT_b] int64 on the logits' device: the query of every segment, image after image; -1 where an image has
            more segments than queries and this one got none.
        """
        with torch.autocast(mask_logits[0].device.type, enabled=False):
            costs = self._costs(class_logits, mask_logits, gt_classes, gt_masks, generators)
        host_costs = costs.double().cpu().numpy()  # the only host synchronisation
        columns = [_assign(host_costs[:, b, :, : len(classes)], file_names[b]) for b, classes in enumerate(gt_classes)]
        return torch.from_numpy(np.concatenate(columns, axis=1)).to(mask_logits[0].device)

    def _costs(
        self,
        class_logits: Sequence[Tensor],
        mask_logits: Sequence[Tensor],
        gt_classes: Sequence[Tensor],
        gt_masks: Sequence[Tensor],
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """[P, B, Q, T] costs, T the most segments of an image; columns beyond an image's own are meaningless."""
        num_predictions, device = len(mask_logits), mask_logits[0].device
        points = [
            torch.rand((num_predictions, self.num_points, 2), generator=generator, device=device)
            for generator in generators
        ]
        targets = pad_sequence(
            [_sample_targets(masks, where) for masks, where in zip(gt_masks, points, strict=True)], batch_first=True
        )  # [B, T, P, n]
        classes = pad_sequence(list(gt_classes), batch_first=True)  # [B, T]
        costs = []
        for p in range(num_predictions):
            logits = point_sample(mask_logits[p].float(), torch.stack([where[p] for where in points]))  # [B, Q, n]
            probs = class_logits[p].float().softmax(dim=-1)
            class_cost = -probs.gather(2, classes.unsqueeze(1).expand(-1, probs.shape[1], -1))
            costs.append(
                self.class_weight * class_cost
                + self.bce_weight * pairwise_bce_loss(logits, targets[:, :, p])
                + self.dice_weight * pairwise_dice_loss(logits, targets[:, :, p])
            )
        return torch.stack(costs)


def pairwise_bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """[..., Q, T] mean binary cross-entropy of masks [..., Q, P] (logits) with targets [..., T, P] in [0, 1].

    BCE(x, t) = softplus(x) - x t, so the mean over points is a row's mean softplus less one matrix product.
    """
    products = logits @ targets.transpose(-2, -1)
    return F.softplus(logits).mean(dim=-1, keepdim=True) - products / logits.shape[-1]


def _sample_targets(masks: Tensor, points: Tensor) -> Tensor:
    """[T, P, n] values of masks [T, H, W] at points [P, n, 2]."""
    values = point_sample(masks.unsqueeze(0), points.flatten(0, 1).unsqueeze(0))[0]
    return values.unflatten(1, points.shape[:2])


def _assign(costs: np.ndarray, file_name: str) -> np.ndarray:
    """[P, T] query of every segment, -1 for none, from one image's [P, Q, T] costs."""
    finite = np.isfinite(costs)
    if not finite.all():
        logger.warning("%s: %d of %d matching costs are not finite", file_name, (~finite).sum(), finite.size)
        costs = np.where(finite, costs, REPLACEMENT_COST)
    queries = np.full((costs.shape[0], costs.shape[2]), -1, dtype=np.int64)
    for p, cost in enumerate(costs):
        rows, columns = linear_sum_assignment(cost)
        queries[p, columns] = rows
    return queries
