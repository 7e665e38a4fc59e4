"""PosSAM's criterion against Mask2Former's, forward and backward, at the size of training: JSON lines, equality first.

    python -m benchmarks.possam_criterion                       # two images of 1024², 100 queries, ten layers
    BENCH_PEERS=clones python -m benchmarks.possam_criterion    # with clones/Mask2Former, the peer itself; its file
                                                                # imports Detectron2, which has to be installed

Without the peer ours runs against the same formulation written out here: prediction point after prediction point, the
truth converted for each. Ours also learns the masks' IoU, which Mask2Former does not have.

Both draw random points, each in its own order. For the comparison of the losses and their gradients every draw is
therefore the beginning of one list of points, and only uncertain points are taken; time is measured on real draws.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.scenes import class_scores, segment_map
from benchmarks.side_by_side import in_turn, peer_file, tell
from possam.criterion import Criterion, Predictions
from possam.matcher import HungarianMatcher
from possam.point_losses import dice_loss, pairwise_dice_loss, point_sample
from sam_common.structures import Segments

CLASSES, LAYERS, IMAGES, SEGMENTS = 133, 10, 2, 16
WEIGHTS = {"class": 2.0, "mask": 5.0, "dice": 5.0}
VOID_WEIGHT = 0.1
Losses = dict[str, Tensor]
Run = Callable[[list[Predictions], list[Segments]], Losses]


def make_batch(size: int, queries: int) -> tuple[list[Predictions], list[Segments]]:
    """Smooth masks at stride 4 and random class scores, as leaves; segments at the size of the images."""
    generator = torch.Generator().manual_seed(0)
    predictions = []
    for point in range(LAYERS):
        maps = [6 * class_scores(size // 4, size // 4, queries, seed=100 * point + image) for image in range(IMAGES)]
        logits = torch.randn(IMAGES, queries, CLASSES + 1, generator=generator).requires_grad_()
        quality = torch.rand(IMAGES, queries, generator=generator).requires_grad_()
        predictions.append(Predictions(logits, torch.stack(maps).requires_grad_(), quality))
    targets = []
    for image in range(IMAGES):
        labels = segment_map(size, size, SEGMENTS, seed=1000 + image)
        masks = labels == torch.arange(SEGMENTS)[:, None, None]
        targets.append(Segments(torch.randint(0, CLASSES, (SEGMENTS,), generator=generator), masks))
    return predictions, targets


def ours(num_points: int, importance: float, *, iou_weight: float = 1.0) -> Run:
    weights = {
        f"{name}_weight": WEIGHTS[kind] for name, kind in (("class", "class"), ("bce", "mask"), ("dice", "dice"))
    }
    matcher = HungarianMatcher(**weights, num_points=num_points)
    criterion = Criterion(
        matcher,
        **weights,
        iou_weight=iou_weight,
        void_weight=VOID_WEIGHT,
        num_points=num_points,
        importance_ratio=importance,
    )

    def run(predictions: list[Predictions], targets: list[Segments]) -> Losses:
        return criterion(predictions, targets, list(range(len(targets))), ["image"] * len(targets))

    return run


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


def load_peer(folder: Path) -> ModuleType:
    """Mask2Former's criterion and matcher without what its packages load at their import: Detectron2's and CUDA's."""
    for name in ("mask2former", "mask2former.modeling", "mask2former.utils"):
        package = ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    importlib.import_module("mask2former.modeling.matcher")
    return importlib.import_module("mask2former.modeling.criterion")


def mask2former(criterion: ModuleType, num_points: int, importance: float) -> Run:
    matcher = sys.modules["mask2former.modeling.matcher"]
    costs = {f"cost_{name}": weight for name, weight in WEIGHTS.items()}
    judge = criterion.SetCriterion(
        CLASSES,
        matcher=matcher.HungarianMatcher(**costs, num_points=num_points),
        weight_dict={},
        eos_coef=VOID_WEIGHT,
        losses=["labels", "masks"],
        num_points=num_points,
        oversample_ratio=3.0,
        importance_sample_ratio=importance,
    )

    def run(predictions: list[Predictions], targets: list[Segments]) -> Losses:
        said = [{"pred_logits": p.class_logits, "pred_masks": p.mask_logits} for p in predictions]
        truth = [{"labels": target.gt_classes, "masks": target.gt_masks} for target in targets]
        losses = judge({**said[-1], "aux_outputs": said[:-1]}, truth)
        names = {"loss_ce": "class", "loss_mask": "mask", "loss_dice": "dice"}
        weighted = {}
        for name, loss in losses.items():
            kind = next(ours for theirs, ours in names.items() if name.startswith(theirs))
            weighted[f"loss_{kind}" + "".join(f"_{x}" for x in name.split("_")[2:])] = WEIGHTS[kind] * loss
        return weighted

    return run


def find_peer() -> tuple[str, Callable[[int, float], Run]]:
    """Mask2Former's where its clone is and Detectron2 is installed, else the same written out."""
    path = peer_file("Mask2Former", "mask2former/modeling/criterion.py")
    if path is None:
        return "the plain PyTorch formulation (BENCH_PEERS has no Mask2Former)", plain
    try:
        module = load_peer(path.parents[1])
    except ImportError as missing:
        return f"the plain PyTorch formulation (Mask2Former: {missing})", plain
    return "Mask2Former", lambda *options: mask2former(module, *options)


def learn(run: Run, batch: tuple[list[Predictions], list[Segments]]) -> tuple[Losses, list[Tensor]]:
    """The losses, and the gradients of all class scores and masks."""
    losses = run(*batch)
    leaves = [x for p in batch[0] for x in (p.class_logits, p.mask_logits)]
    return losses, list(torch.autograd.grad(sum(losses.values()), leaves))


def check(peer: Callable[[int, float], Run]) -> None:
    """Raises unless losses and gradients agree to 1e-4 of the largest, on small images and one list of points."""
    batch = make_batch(128, 30)
    listed = torch.rand(4096, 2, generator=torch.Generator().manual_seed(1))

    def draw(*shape: Any, **_: Any) -> Tensor:
        rows = shape[0] if len(shape) == 1 else shape
        return listed[: rows[-2]].expand(*rows[:-2], -1, -1).contiguous()

    with mock.patch("torch.rand", draw):
        losses, gradients = learn(ours(512, 1.0, iou_weight=0.0), batch)
        expected, expected_gradients = learn(peer(512, 1.0), batch)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    for gradient, truth in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=0, atol=1e-4 * truth.abs().max().item())


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="of the images, pixels")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--points", type=int, default=12544)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    name, peer = find_peer()
    check(peer)
    batch = make_batch(args.size, args.queries)
    runs = [peer(args.points, 0.75), ours(args.points, 0.75)]
    measured = in_turn(
        lambda: learn(runs[0], batch), lambda: learn(runs[1], batch), repeats=args.repeats, threads=args.threads
    )
    case = f"PosSAM's criterion, {IMAGES} images of {args.size}², {args.queries} queries, forward + backward"
    tell(case, name, measured, target=1.3)


if __name__ == "__main__":
    main()
