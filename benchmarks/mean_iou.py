"""mIoU from class scores, 150 and 847 classes, against what Detectron2's SemSegEvaluator does: JSON lines.

    python benchmarks/mean_iou.py

The peer is that evaluator's arithmetic written out here, since Detectron2 is on no registry: the argmax over the
leading axis and a confusion matrix of all pixels. Writing predictions to disk is left out of both. `reading_ms` is what
adding up all scores takes, which reads each of them once: the floor.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from benchmarks.scenes import class_scores, segment_map
from benchmarks.side_by_side import in_turn, tell
from sam_common import map_kernels
from sam_common.evaluation.mean_iou import best_class, pixel_counts

HEIGHT, WIDTH = 512, 683  # ADE20K's usual size


def plain(scores: Tensor, truth: Tensor, num_classes: int) -> np.ndarray:
    """[C, 3] TP, true and predicted pixels by way of a confusion matrix; -1 in the truth is ignored."""
    predicted = scores.argmax(dim=0).numpy()
    true = np.where(truth.numpy() < 0, num_classes, truth.numpy())
    joint = np.bincount((num_classes + 1) * predicted.ravel() + true.ravel(), minlength=(num_classes + 1) ** 2)
    matrix = joint.reshape(num_classes + 1, num_classes + 1)[:-1, :-1]
    return np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], axis=1)


def main() -> None:
    """Prints a line for each number of classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for num_classes in (150, 847):
        scores = class_scores(HEIGHT, WIDTH, num_classes, seed=0)
        truth = segment_map(HEIGHT, WIDTH, 20, seed=1) - 1

        def peer(scores: Tensor = scores, truth: Tensor = truth, num_classes: int = num_classes) -> np.ndarray:
            return plain(scores, truth, num_classes)

        def ours(scores: Tensor = scores, truth: Tensor = truth, num_classes: int = num_classes) -> np.ndarray:
            return pixel_counts(truth, best_class(scores), num_classes).numpy()

        if not np.array_equal(peer(), ours()):
            raise SystemExit("the counts differ")
        measured = in_turn(peer, ours, repeats=args.repeats, threads=args.threads)
        reading = in_turn(scores.sum, ours, repeats=args.repeats, threads=args.threads)
        measured |= {"reading_ms": reading["peer_ms"], "kernel": map_kernels.kernel_in_use()}
        tell(
            f"mIoU from scores, {num_classes} classes", "the plain PyTorch and NumPy formulation", measured, target=6.0
        )


if __name__ == "__main__":
    main()
