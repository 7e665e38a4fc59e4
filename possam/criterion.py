"""PosSAM's training loss, at every prediction point of the decoder (PosSAM, arXiv 2403.09620, Section 3.5).

    loss = λ_class CE + λ_bce BCE + λ_dice dice + λ_iou (p_iou - IoU(M > 0, m))²

CE runs over all queries: matched ones towards their segment's class, the others towards void, which counts
`void_weight`; it is the weighted mean. The rest runs over matched (query, segment) pairs and is divided by the number
of segments. BCE and dice are taken at points (`possam/point_losses.py`). [ours] The IoU target is computed
on all pixels of the mask logits, the ground truth area-averaged to their size: the points favour borders and would
judge every mask too badly.

Both divisors are sums over all images of the iteration, whichever process and whichever part of its batch
(`SOLVER.ACCUMULATE`) they are in. With T_i segments in image i, Q queries and v = `void_weight`:

    num_segments = Σ_i T_i        class_divisor = Σ_i min(T_i, Q) + v (Q - min(T_i, Q))

They follow from the ground truth alone, so they are known before the first part's forward, and the losses of the parts,
each divided by them, add up to those of the batch. DDP averages gradients over the W processes, so every process
multiplies its losses by W: what is averaged is then what one process with the whole batch would compute.

Symbols: P prediction points, B images, Q queries, C classes, T segments of the batch, n points; M `mask_logits`,
m `gt_masks`, p_iou `iou`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from possam.matcher import BCE_WEIGHT, CLASS_WEIGHT, DICE_WEIGHT, NUM_POINTS, HungarianMatcher
from possam.point_losses import dice_loss, point_sample, uncertain_points
from sam_common.layers.processes import mean_over_processes
from sam_common.structures import Segments

logger = logging.getLogger(__name__)

POINTS_STREAM = 0x2F6C_8D41_9B3E_57A5
"""Mixed into an image's seed, so that points do not repeat the random numbers its augmentation was drawn from."""


@dataclass
class Predictions:
    """What the heads say at one prediction point.

    Where the decoder stacks its prediction points, take them apart with `unbind(0)`: its backward is one stack, while
    that of indexing writes a full tensor of zeros for each point.

    Attributes:
        class_logits: [B, Q, C+1], void last.
        mask_logits: [B, Q, h, w].
        iou: [B, Q] predicted mask quality in [0, 1].
    """

    class_logits: Tensor
    mask_logits: Tensor
    iou: Tensor


class Criterion(nn.Module):
    """The weighted losses of a batch.

    Args:
        matcher: assigns segments to queries.
        class_weight, bce_weight, dice_weight, iou_weight: λ of the header; 0 switches a loss off.
        void_weight: how much a query without a segment counts in the class loss.
        num_points, oversample_ratio, importance_ratio: see `uncertain_points`.
    """

    def __init__(
        self,
        matcher: HungarianMatcher,
        *,
        class_weight: float = CLASS_WEIGHT,
        bce_weight: float = BCE_WEIGHT,
        dice_weight: float = DICE_WEIGHT,
        iou_weight: float = 1.0,
        void_weight: float = 0.1,
        num_points: int = NUM_POINTS,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.weights = {"class": class_weight, "mask": bce_weight, "dice": dice_weight, "iou": iou_weight}
        self.void_weight = void_weight
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_ratio = importance_ratio

    def forward(
        self,
        predictions: Sequence[Predictions],
        targets: Sequence[Segments],
        seeds: Sequence[int],
        file_names: Sequence[str],
        *,
        batch_counts: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """Losses that only have to be added up. Computed in float32 under any autocast.

        A loss that is not finite is returned as it is: the training loop skips the step. The log names the images.

        Args:
            predictions: P prediction points, the last one is the final one.
            targets: B ground truths on the predictions' device, their masks padded to the one size H × W of the batch,
                which need not be h × w.
            seeds: B 63-bit seeds; an image's random points depend on nothing else.
            file_names: B names for warnings.
            batch_counts: segments of each image that this process sees in the iteration; None: these B are all.

        Returns:
            `loss_class`, `loss_mask`, `loss_dice`, `loss_iou` of the final prediction point, and the same with `_0` ...
            `_{P-2}` for those before it. They stay connected to the predictions also where no image has segments.
        """
        device = predictions[0].mask_logits.device
        generators = [torch.Generator(device).manual_seed(seed ^ POINTS_STREAM) for seed in seeds]
        counts = [len(target) for target in targets]
        gt_classes = torch.cat([target.gt_classes for target in targets])
        gt_masks = torch.cat([target.gt_masks for target in targets]).float()  # once for all uses
        with torch.autocast(device.type, enabled=False):
            queries = self.matcher(
                [prediction.class_logits for prediction in predictions],
                [prediction.mask_logits for prediction in predictions],
                gt_classes.split(counts),
                gt_masks.split(counts),
                generators,
                file_names,
            )
            images = torch.arange(len(targets)).repeat_interleave(torch.tensor(counts)).to(device)  # [T]
            num_segments, class_divisor = self._divisors(
                counts if batch_counts is None else batch_counts, predictions[0].class_logits
            )
            bce, dice, squared_error = self._mask_losses(predictions, gt_masks, queries, images, counts, generators)
            losses = {
                "class": self._class_loss(predictions, gt_classes, queries, images) / class_divisor,
                "mask": bce / num_segments,
                "dice": dice / num_segments,
                "iou": squared_error / num_segments,
            }
        return self._named(losses, file_names)

    def _divisors(self, counts: Sequence[int], class_logits: Tensor) -> Tensor:
        """[2]: number of segments and total weight in the class loss, means over all processes."""
        num_queries = class_logits.shape[1]
        matched = sum(min(count, num_queries) for count in counts)
        class_weight = matched + self.void_weight * (len(counts) * num_queries - matched)
        totals = torch.tensor([float(sum(counts)), class_weight], device=class_logits.device)
        # Nothing to divide (no segments at all, or void_weight 0 as well) is 0 over a positive number.
        return mean_over_processes(totals).clamp(min=1e-6)

    def _class_loss(
        self, predictions: Sequence[Predictions], gt_classes: Tensor, queries: Tensor, images: Tensor
    ) -> Tensor:
        """[P] weighted sums of the cross-entropy over images and queries."""
        logits = torch.stack([prediction.class_logits for prediction in predictions]).float()  # [P, B, Q, C+1]
        void = logits.shape[-1] - 1
        num_predictions, batch_size, num_queries = logits.shape[:3]
        # One column more than queries: a segment without a query (-1) writes there.
        labels = torch.full((num_predictions, batch_size, num_queries + 1), void, device=logits.device)
        points = torch.arange(num_predictions, device=logits.device)
        labels[points[:, None], images[None], queries] = gt_classes.expand(num_predictions, -1)
        labels = labels[..., :-1]
        losses = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), reduction="none").view_as(labels)
        return torch.where(labels == void, self.void_weight * losses, losses).sum(dim=(1, 2))

    def _mask_losses(
        self,
        predictions: Sequence[Predictions],
        gt_masks: Tensor,
        queries: Tensor,
        images: Tensor,
        counts: list[int],
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[P] sums over the matched pairs of BCE, dice and the IoU head's squared error."""
        # Segments without a query (-1) read the last query; their losses are multiplied by 0 below.
        pairs = list(zip(predictions, queries, strict=True))
        logits = torch.stack([prediction.mask_logits[images, q] for prediction, q in pairs]).float()  # [P, T, h, w]
        iou = torch.stack([prediction.iou[images, q] for prediction, q in pairs]).float()  # [P, T]
        by_image = zip(logits.split(counts, dim=1), gt_masks.split(counts), generators, strict=True)
        point_losses = [self._point_losses(*image) for image in by_image]  # B pairs of [P, T_b]
        bce, dice = (torch.cat(losses, dim=1) for losses in zip(*point_losses, strict=True))
        squared_error = (iou - mask_iou(logits.detach(), gt_masks)).square()
        matched = queries >= 0
        return (matched * bce).sum(dim=1), (matched * dice).sum(dim=1), (matched * squared_error).sum(dim=1)

    def _point_losses(self, logits: Tensor, gt_masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """[P, T] BCE and dice of one image from matched [P, T, h, w] logits and [T, H, W] ground truth."""
        points = uncertain_points(
            logits.detach(),
            self.num_points,
            oversample_ratio=self.oversample_ratio,
            importance_ratio=self.importance_ratio,
            generator=generator,
        )  # [P, T, n, 2]
        num_predictions, num_segments = points.shape[:2]
        sampled = point_sample(logits.flatten(0, 1).unsqueeze(1), points.flatten(0, 1))  # [P T, 1, n]
        sampled = sampled.view(num_predictions, num_segments, self.num_points)
        # A segment is read once at the points of all prediction points, so its mask is never copied.
        truth = point_sample(gt_masks.unsqueeze(1), points.transpose(0, 1).flatten(1, 2))  # [T, 1, P n]
        truth = truth.view(num_segments, num_predictions, self.num_points).transpose(0, 1)
        bce = F.binary_cross_entropy_with_logits(sampled, truth, reduction="none").mean(dim=-1)
        return bce, dice_loss(sampled, truth)

    def _named(self, losses: dict[str, Tensor], file_names: Sequence[str]) -> dict[str, Tensor]:
        if not torch.isfinite(torch.stack(list(losses.values()))).all():
            logger.warning("the loss is not finite for the batch of %s", ", ".join(file_names))
        named = {}
        for name, values in losses.items():
            *auxiliary, final = (self.weights[name] * values).unbind()
            named[f"loss_{name}"] = final
            named.update({f"loss_{name}_{p}": value for p, value in enumerate(auxiliary)})
        return named


def mask_iou(mask_logits: Tensor, gt_masks: Tensor) -> Tensor:
    """IoU of the masks `mask_logits > 0` with their ground truth, 0 where both are empty.

    Args:
        mask_logits: [..., T, h, w].
        gt_masks: [T, H, W] float, 0 or 1, area-averaged to h × w and cut at one half where sizes differ.

    Returns:
        [..., T] in [0, 1].
    """
    predicted = mask_logits > 0
    height, width = mask_logits.shape[-2:]
    truth = F.adaptive_avg_pool2d(gt_masks, (height, width)) >= 0.5
    intersection = (predicted & truth).sum(dim=(-2, -1))
    union = (predicted | truth).sum(dim=(-2, -1))
    return intersection / union.clamp(min=1)
