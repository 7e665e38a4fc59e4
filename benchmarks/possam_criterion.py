"""PosSAM's criterion against Mask2Former's, forward and backward, at the size of training: JSON lines, equality first.

    python -m benchmarks.possam_criterion                       # two images of 1024², 100 queries, ten layers
    BENCH_PEERS=clones python -m benchmarks.possam_criterion    # with clones/Mask2Former, the peer itself; its file
                                                                # imports Detectron2, which has to be installed

Without the peer ours runs against itself, called for one prediction point after the other. Ours also learns the masks'
IoU, which Mask2Former does not have.

Both draw random points, each in its own order. For the comparison of the losses and their gradients every draw is
therefore the beginning of one list of points, and only uncertain points are taken; time is measured on real draws.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.scenes import class_scores, segment_map
from benchmarks.side_by_side import Parser, in_turn, peer_file, tell
from detectron2_sam.commands.cli import run_tool
from possam.criterion import Criterion, Predictions
from possam.matcher import HungarianMatcher
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
    weights = {f"{name}_weight": WEIGHTS[kind] for name, kind in zip(("class", "bce", "dice"), WEIGHTS, strict=True)}
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


def point_by_point(num_points: int, importance: float) -> Run:
    """Ours, called for each prediction point by itself."""
    single = ours(num_points, importance, iou_weight=0.0)

    def run(predictions: list[Predictions], targets: list[Segments]) -> Losses:
        losses = {}
        for point, prediction in enumerate(predictions):
            suffix = "" if prediction is predictions[-1] else f"_{point}"
            losses |= {f"{name}{suffix}": loss for name, loss in single([prediction], targets).items()}
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
    """Mask2Former's where its clone is and Detectron2 is installed, else ours, point by point."""
    path = peer_file("Mask2Former", "mask2former/modeling/criterion.py")
    if path is None:
        return "ours, point by point (BENCH_PEERS has no Mask2Former)", point_by_point
    try:
        module = load_peer(path.parents[1])
    except ImportError as missing:
        return f"ours, point by point (Mask2Former: {missing})", point_by_point
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
    args = Parser(__doc__, size=1024, queries=100, points=12544, threads=1, repeats=3).parse()
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
    sys.exit(run_tool(main))
