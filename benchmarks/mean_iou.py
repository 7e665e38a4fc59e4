"""mIoU from class scores, 150 and 847 classes, against what Detectron2's SemSegEvaluator does: JSON lines.

    python -m benchmarks.mean_iou

Two cases for each. The first is the arithmetic: the peer is that evaluator's written out here, the argmax over the
leading axis and a confusion matrix of all pixels. `reading_ms` is what adding up all scores takes, which reads each of
them once: the floor. The second is the evaluators themselves, where Detectron2 is installed: an image with its truth
from a file and its prediction as RLE, which ours writes to disk and theirs keeps. Its boundary IoU is switched off.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from benchmarks.scenes import class_scores, segment_map
from benchmarks.side_by_side import Parser, in_turn, tell
from detectron2_sam.commands.cli import run_tool
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.label_maps import ignore_label
from sam_common.evaluation.mean_iou import MeanIoUEvaluator, best_class, pixel_counts
from sam_common.masks import kernels
from sam_common.structures import Category

HEIGHT, WIDTH = 512, 683  # ADE20K's usual size


def plain(scores: Tensor, truth: Tensor, num_classes: int) -> np.ndarray:
    """[C, 3] TP, true and predicted pixels by way of a confusion matrix; -1 in the truth is ignored."""
    predicted = scores.argmax(dim=0).numpy()
    true = np.where(truth.numpy() < 0, num_classes, truth.numpy())
    joint = np.bincount((num_classes + 1) * predicted.ravel() + true.ravel(), minlength=(num_classes + 1) ** 2)
    matrix = joint.reshape(num_classes + 1, num_classes + 1)[:-1, :-1]
    return np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], axis=1)


def evaluators(
    scores: Tensor, truth: Tensor, folder: Path
) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Detectron2's evaluator and ours on one image of a data set in `folder`: both give counts as `plain`."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator

    num_classes, path = len(scores), folder / "labels.png"
    name, ignored = f"mean_iou_{num_classes}", ignore_label(num_classes)
    labels = np.where(truth < 0, ignored, truth)
    Image.fromarray(labels.astype(np.uint8 if num_classes <= 255 else np.uint16)).save(path)
    record = {"file_name": "0.png", "image_id": 0, "height": HEIGHT, "width": WIDTH}
    record |= {"sem_seg_file_name": str(path), "num_classes": num_classes, "ignore_label": ignored}
    words = [f"class {index}" for index in range(num_classes)]
    spec = DatasetSpec(name, lambda: [record], lambda: tuple(Category(word, (word,)) for word in words))
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(stuff_classes=words, ignore_label=ignored)
    theirs, mine = SemSegEvaluator(name, distributed=False), MeanIoUEvaluator(spec, output_dir=folder / "inference")
    theirs._compute_boundary_iou = False  # ours has none

    def judge(evaluator: SemSegEvaluator | MeanIoUEvaluator) -> None:
        evaluator.reset()
        evaluator.process([record], [{"sem_seg": scores}])

    def peer() -> np.ndarray:
        judge(theirs)
        matrix = theirs._conf_matrix[:-1, :-1]
        return np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], axis=1)

    def ours() -> np.ndarray:
        judge(mine)
        return mine._counts.numpy()

    return peer, ours


def main() -> None:
    """Prints two lines for each number of classes, one where Detectron2 is not installed."""
    args = Parser(__doc__, threads=1, repeats=5).parse()
    for num_classes in (150, 847):
        scores = class_scores(HEIGHT, WIDTH, num_classes, seed=0)
        truth = segment_map(HEIGHT, WIDTH, 20, seed=1) - 1

        def peer(scores: Tensor = scores, truth: Tensor = truth, num_classes: int = num_classes) -> np.ndarray:
            return plain(scores, truth, num_classes)

        def ours(scores: Tensor = scores, truth: Tensor = truth, num_classes: int = num_classes) -> np.ndarray:
            return pixel_counts(truth, best_class(scores), num_classes).numpy()

        np.testing.assert_array_equal(ours(), peer())
        measured = in_turn(peer, ours, repeats=args.repeats, threads=args.threads)
        reading = in_turn(scores.sum, ours, repeats=args.repeats, threads=args.threads)
        measured |= {"reading_ms": reading["peer_ms"], "kernel": kernels.kernel_in_use()}
        tell(
            f"mIoU from scores, {num_classes} classes", "the plain PyTorch and NumPy formulation", measured, target=6.0
        )
        if importlib.util.find_spec("detectron2"):
            with tempfile.TemporaryDirectory() as folder:
                both = evaluators(scores, truth, Path(folder))
                np.testing.assert_array_equal(both[1](), both[0]())
                measured = in_turn(*both, repeats=args.repeats, threads=args.threads)
            tell(f"mIoU evaluator, {num_classes} classes", "Detectron2's SemSegEvaluator", measured, target=6.0)


if __name__ == "__main__":
    sys.exit(run_tool(main))
