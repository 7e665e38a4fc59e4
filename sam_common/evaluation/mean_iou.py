"""Mean intersection over union of semantic segmentation, under both of the rules Detectron2 has had.

Over all pixels whose truth is a class, for each class c: TP_c pixels where truth and prediction are c, T_c where the
truth is c, P_c where the prediction is c.

    IoU_c = TP_c / (T_c + P_c − TP_c),    ACC_c = TP_c / T_c
    mIoU       = Σ IoU_c / |{c: T_c > 0}|                        the classes that the truth has
    mIoU_union = Σ IoU_c / |{c: T_c + P_c > 0}|                  the classes that truth or prediction have
    fwIoU = Σ T_c IoU_c / Σ T_c,    mACC = Σ ACC_c / |{c: T_c > 0}|,    pACC = Σ TP_c / Σ T_c

Detectron2's `SemSegEvaluator` gave `mIoU_union` the name mIoU until commit f3c1bc19 of 6 July 2022, and `mIoU` since,
both as version 0.6. A class that is predicted but never there counts as a zero in the older rule, which matters where
the vocabulary is open. The two are equal where the truth has every class that is predicted.
Values are percentages. A pixel of a crowd segment is a pixel of its class.

Symbols: C classes, H and W the pixels of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam_common.contracts import ModelInput, SegmentationOutput, SegmentationRecord
from sam_common.evaluation.class_groups import GROUPS, class_groups
from sam_common.evaluation.evaluator import Evaluator, Results, check_shape
from sam_common.evaluation.result_file import ResultFile
from sam_common.evaluation.truth import IGNORE, read_class_map, truth_beside
from sam_common.layers.processes import gather
from sam_common.masks import kernels
from sam_common.masks.rle import encode_labels, run_starts
from sam_common.structures import Vocabulary

TP, TRUE, PREDICTED = range(3)
"""Columns of the counts [C, 3] int64: TP_c, T_c and P_c. Of a confusion matrix [C, C] this is all that is used."""

_BLOCK = 2**15
"""Pixels."""


def pixel_counts(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """The counts of one image.

    Args:
        truth: [H, W] int64 classes, `IGNORE` where there is none.
        predicted: [H, W] int64 classes.

    Returns:
        [C, 3] int64, columns TP, TRUE, PREDICTED.
    """
    true_pixels, predicted_pixels = truth.numpy().ravel(), predicted.numpy().ravel()
    starts = run_starts(true_pixels, predicted_pixels)
    true, found, lengths = true_pixels[starts], predicted_pixels[starts], np.diff(starts, append=true_pixels.size)
    counted = true != IGNORE
    columns = ((true, counted & (true == found)), (true, counted), (found, counted))
    counts = [np.bincount(runs[kept], lengths[kept], num_classes) for runs, kept in columns]  # exact below 2⁵³
    return torch.from_numpy(np.stack(counts, axis=1)).long()


def best_class(scores: Tensor) -> Tensor:
    """The class of the highest score at every pixel, the first of equal ones: `scores.argmax(dim=0)`, int64 [H, W].

    On a CPU that walks through memory in steps of a whole map; here class after class is compared with the best so far,
    for a block of pixels that stays in the cache: compiled, every score is read once. Blocks are shared out to as many
    threads as PyTorch uses.

    Args:
        scores: [C, H, W], floating point.
    """
    if scores.device.type != "cpu" or not scores.numel():
        return scores.argmax(dim=0)
    pixels = scores.flatten(1)
    classes = torch.empty(pixels.shape[1], dtype=torch.int64)

    def fill(start: int) -> None:
        part = pixels[:, start : start + _BLOCK]
        rows = (part if part.dtype in (torch.float32, torch.float64) else part.float()).numpy()
        best = kernels.first_highest(rows)
        classes[start : start + _BLOCK] = torch.from_numpy(_first_highest(rows) if best is None else best)

    kernels.kernel_in_use()  # compiled here where it was not yet, rather than by each of the threads
    starts = range(0, len(classes), _BLOCK)
    with ThreadPoolExecutor(min(torch.get_num_threads(), len(starts))) as pool:
        list(pool.map(fill, starts))  # raises what went wrong
    return classes.view(scores.shape[1:])


def _first_highest(rows: np.ndarray) -> np.ndarray:
    """`rows.argmax(axis=0)`, [C, N] -> [N] int64, row by row: 255 classes at a time are numbered in bytes, from 1."""
    highest, classes = rows[0].copy(), np.zeros(rows.shape[1], dtype=np.int64)
    better, number = np.empty((2, rows.shape[1]), dtype=np.uint8)
    for base in range(1, len(rows), 255):
        found = np.zeros(rows.shape[1], dtype=np.uint8)
        for index, row in enumerate(rows[base : base + 255], start=1):
            np.greater(row, highest, out=better.view(bool))
            np.maximum(row, highest, out=highest)
            np.multiply(better, np.uint8(index), out=number)
            np.maximum(found, number, out=found)  # later classes have higher numbers
        classes = np.where(found > 0, found + np.int64(base - 1), classes)
    no_number = np.isnan(highest)  # is an argmax, but greater than nothing
    classes[no_number] = rows[:, no_number].argmax(axis=0)
    return classes


def class_iou(counts: Tensor) -> Tensor:
    """IoU of every class: counts [C, 3] -> [C] in [0, 1]; NaN where neither truth nor prediction has it."""
    tp, true, predicted = counts.double().unbind(1)
    return tp / (true + predicted - tp)  # 0/0 is NaN


def class_accuracy(counts: Tensor) -> Tensor:
    """Pixel accuracy of every class: counts [C, 3] -> [C] in [0, 1]; NaN where the truth does not have it."""
    return counts[:, TP].double() / counts[:, TRUE].double()


def means(counts: Tensor) -> dict[str, float]:
    """mIoU, mIoU_union, fwIoU, mACC and pACC, percentages, of counts [C, 3].

    NaN where the truth has no class; mIoU_union where the prediction has none either.
    """
    iou, true = class_iou(counts), counts[:, TRUE]
    found = {
        "mIoU": iou[true > 0].mean(),
        "mIoU_union": iou.nanmean(),
        "fwIoU": (true.double() / true.sum() * iou.nan_to_num()).sum(),
        "mACC": class_accuracy(counts).nanmean(),
        "pACC": counts[:, TP].sum().double() / true.sum(),
    }
    return {name: 100 * float(value) for name, value in found.items()}


def summarize(counts: Tensor, vocabulary: Vocabulary, groups: dict[str, Tensor]) -> dict[str, float]:
    """The flat metrics of a table.

    Returns:
        `means`; `n`, the classes that the truth has; mIoU, mIoU_union and n of the seen and the unseen classes; per
        class that the truth has `IoU-name` and `ACC-name`.
    """
    metrics = means(counts) | {"n": float((counts[:, TRUE] > 0).sum())}
    for group in ("seen", "unseen"):
        members = counts[groups[group]] if group in groups else counts[:0]
        if members[:, TRUE].any():
            of_group = means(members) | {"n": float((members[:, TRUE] > 0).sum())}
            metrics |= {f"{name}{GROUPS[group]}": of_group[name] for name in ("mIoU", "mIoU_union", "n")}
    iou, accuracy = (100 * class_iou(counts)).tolist(), (100 * class_accuracy(counts)).tolist()
    for index in counts[:, TRUE].nonzero().flatten().tolist():
        name = vocabulary[index].name
        metrics |= {f"IoU-{name}": iou[index], f"ACC-{name}": accuracy[index]}
    return metrics


RULES = {
    "mIoU": "over the classes that the truth has (Detectron2 since July 2022)",
    "mIoU_union": "over the classes that truth or prediction have (Detectron2 before July 2022)",
}


class MeanIoUEvaluator(Evaluator):
    """Compares `sem_seg` with a label map, or with the classes of a panoptic annotation; keeps ids and counts [C, 3].

    Writes `sem_seg_predictions.json` into `output_dir`: per image and class that was predicted in it one entry with
    file_name, category_id (the data set's own), segmentation (RLE), as Detectron2 does, and image_id, as COCO asks.
    """

    judges = ("sem_seg", "sem_seg_labels")
    truth = "semantic"

    @property
    def rules(self) -> Mapping[str, str]:
        """Both rules of the mean."""
        return {**RULES, "crowd": "its pixels count for its class", **truth_beside(self.spec, self.truth)}

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self._counts = torch.zeros(len(self.vocabulary), 3, dtype=torch.int64)
        self._predictions = ResultFile(self.output_dir / "sem_seg_predictions.json")

    def judge(self, record: SegmentationRecord, item: ModelInput, output: SegmentationOutput) -> None:
        """Counts an image and writes its classes: `sem_seg_labels` [H, W], or else the best of `sem_seg` [C, H, W]."""
        labels = output["sem_seg_labels"] if "sem_seg_labels" in output else best_class(output["sem_seg"])
        predicted = labels.cpu().long()
        truth = read_class_map(record)
        check_shape(record, predicted, truth)
        self._counts += pixel_counts(truth, predicted, len(self.vocabulary))
        self._predictions.append(self._encode(record, predicted))

    def evaluate(self) -> Results:
        """`{"sem_seg": metrics}` as `summarize` names them, over all ranks."""
        counts = torch.stack(gather(self._counts)).sum(0)
        self._predictions.join()
        groups = class_groups(self.vocabulary, self.training_vocabulary)
        return {"sem_seg": summarize(counts, self.vocabulary, groups)}

    def _encode(self, record: SegmentationRecord, predicted: Tensor) -> list[dict[str, Any]]:
        return [
            {
                "image_id": record["image_id"],
                "file_name": record["file_name"],
                "category_id": self.vocabulary[index].id,
                "segmentation": rle,
            }
            for index, rle in encode_labels(predicted).items()
        ]
