"""Mask2Former's criterion written out: prediction point after prediction point, the truth converted for each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.possam_criterion import CLASSES, VOID_WEIGHT, WEIGHTS, Losses, Run
from possam.criterion import Predictions
from possam.point_losses import dice_loss, pairwise_dice_loss, point_sample
from sam_common.structures import Segments


def plain(num_points: int, importance: float) -> Run:
    """Each prediction point by itself, image by image."""

    def match(logits: Tensor, maps: Tensor, target: Segments) -> tuple[Tensor, Tensor]:
        masks = target.gt_masks.to(maps)
        points = torch.rand(1, num_points, 2)
        sampled = point_sample(maps[:, None], points.repeat(len(maps), 1, 1))[:, 0]
        truth = point_sample(masks[:, None], points.repeat(len(masks), 1, 1))[:, 0]
        inside, outside = (
            F.binary_cross_entropy_with_logits(sampled, torch.full_like(sampled, value), reduction="none")
            for value in (1.0, 0.0)
        )
        bce = (inside @ truth.T + outside @ (1 - truth).T) / num_points
        cost = WEIGHTS["mask"] * bce + WEIGHTS["dice"] * pairwise_dice_loss(sampled, truth)
        cost = cost - WEIGHTS["class"] * logits.softmax(-1)[:, target.gt_classes]
        queries, segments = linear_sum_assignment(cost)
        return torch.from_numpy(queries), torch.from_numpy(segments)

    def uncertain(maps: Tensor) -> Tensor:
        candidates = torch.rand(len(maps), 3 * num_points, 2)
        doubt = -point_sample(maps, candidates)[:, 0].abs()
        chosen = doubt.topk(int(importance * num_points), dim=1).indices
        others = torch.rand(len(maps), num_points - chosen.shape[1], 2)
        return torch.cat((candidates.gather(1, chosen[..., None].expand(-1, -1, 2)), others), dim=1)

    def run(predictions: list[Predictions], targets: list[Segments]) -> Losses:
        losses = {}
        count = sum(len(target) for target in targets)
        void = torch.ones(CLASSES + 1)
        void[-1] = VOID_WEIGHT
        for point, prediction in enumerate(predictions):
            suffix = "" if point == len(predictions) - 1 else f"_{point}"
            with torch.no_grad():
                pairs = [
                    match(*one) for one in zip(prediction.class_logits, prediction.mask_logits, targets, strict=True)
                ]
            images = torch.cat([torch.full_like(queries, image) for image, (queries, _) in enumerate(pairs)])
            queries = torch.cat([queries for queries, _ in pairs])
            labels = torch.full(prediction.class_logits.shape[:2], CLASSES)
            labels[images, queries] = torch.cat([t.gt_classes[s] for t, (_, s) in zip(targets, pairs, strict=True)])
            cross_entropy = F.cross_entropy(prediction.class_logits.transpose(1, 2), labels, void)
            maps = prediction.mask_logits[images, queries][:, None]
            masks = torch.cat([t.gt_masks.to(maps)[s] for t, (_, s) in zip(targets, pairs, strict=True)])[:, None]
            with torch.no_grad():
                points = uncertain(maps)
                truth = point_sample(masks, points)[:, 0]
            sampled = point_sample(maps, points)[:, 0]
            bce = F.binary_cross_entropy_with_logits(sampled, truth, reduction="none").mean(1).sum() / count
            losses[f"loss_class{suffix}"] = WEIGHTS["class"] * cross_entropy
            losses[f"loss_mask{suffix}"] = WEIGHTS["mask"] * bce
            losses[f"loss_dice{suffix}"] = WEIGHTS["dice"] * dice_loss(sampled, truth).sum() / count
        return losses

    return run
