"""Dice and IoU of few-shot segmentation: per image and class, then means.

    Dice = 2 |P ∧ T| / (|P| + |T|)            IoU = |P ∧ T| / |P ∨ T|

P and T are the predicted and the true pixels of one class in one image. An image in which a class is neither true nor
predicted says nothing of it; where only one of the two is empty, both measures are 0. The Dice of a class is the mean
over images, the Dice of a run the mean over classes. Beside the full resolution stands the variant of BLO-SAM's code,
which compares at 64 × 64 pixels, where thin parts are gone.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.image_masks import read_labels
from sam_common.evaluation.evaluator import Results, gather, is_main_process
from sam_common.files import write_text
from sam_common.structures import Vocabulary

SMALL = 64
"""Side of the coarse variant, pixels."""


def class_overlaps(predicted: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    """Pixels of each class beside the background: [K, 3] int64, of prediction, truth and both.

    Args:
        predicted: [H, W] labels 0 … K.
        truth: likewise; pixels below 0 are not looked at.
    """
    known = truth >= 0
    classes = torch.arange(1, num_classes + 1)[:, None]
    is_predicted, is_true = predicted[known] == classes, truth[known] == classes
    return torch.stack((is_predicted.sum(1), is_true.sum(1), (is_predicted & is_true).sum(1)), dim=1)


def dice(overlaps: Tensor) -> Tensor:
    """Dice in [0, 1] of counts [..., 3]; NaN where the class is in neither."""
    predicted, true, both = overlaps.double().unbind(-1)
    return 2 * both / (predicted + true)


def iou(overlaps: Tensor) -> Tensor:
    """IoU in [0, 1] of counts [..., 3]; NaN where the class is in neither."""
    predicted, true, both = overlaps.double().unbind(-1)
    return both / (predicted + true - both)


def small_overlaps(probabilities: Tensor, truth: Tensor) -> Tensor:
    """`class_overlaps` at 64 × 64 pixels: probabilities [K+1, H, W] resized bilinearly, the truth to the nearest."""
    size = (SMALL, SMALL)
    predicted = F.interpolate(probabilities[None], size, mode="bilinear", antialias=True)[0].argmax(0)
    coarse = F.interpolate(truth[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    return class_overlaps(predicted, coarse, len(probabilities) - 1)


class DiceEvaluator:
    """Compares `few_shot`, K+1 probabilities with the background first, with masks in a folder.

    Writes `dice_per_image.csv` into `output_dir`: image_id, then Dice and IoU of each class, worst images first.

    Args:
        spec: the data set, of kind "masks"; its records and vocabulary are loaded here.
        output_dir: made when needed.
        training_vocabulary: not looked at.
    """

    judges = ("few_shot",)
    rules: Mapping[str, str] = {
        "Dice": "per image and class, mean over images, then over classes; at full resolution",
        "Dice_64": "at 64 × 64 pixels, as BLO-SAM's code compares",
        "empty": "an image without a class in truth and prediction does not count for it; in only one of them it is 0",
    }

    def __init__(
        self,
        spec: DatasetSpec,
        *,
        output_dir: str | os.PathLike,
        training_vocabulary: Vocabulary | None = None,
    ) -> None:
        self.vocabulary = spec.load_vocabulary()
        self.path = Path(output_dir) / "dice_per_image.csv"
        self._records = {record["image_id"]: record for record in spec.load()}
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._images: list[tuple[str, Tensor, Tensor]] = []

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Counts one batch: `few_shot` [K+1, H, W] at the size of the image.

        Raises:
            UserError: a mask cannot be read.
        """
        for item, output in zip(inputs, outputs, strict=True):
            record, probabilities = self._records[item["image_id"]], output["few_shot"].float().cpu()
            truth = read_labels(record)
            if probabilities.shape != (len(self.vocabulary) + 1, *truth.shape):
                raise ValueError(f"the prediction of {record['file_name']} is {tuple(probabilities.shape)}")
            full = class_overlaps(probabilities.argmax(0), truth, len(self.vocabulary))
            self._images.append((str(item["image_id"]), full, small_overlaps(probabilities, truth)))

    def evaluate(self) -> Results:
        """`{"few_shot": metrics}` in percent over all ranks: `Dice`, `IoU`, `Dice_64`, `n` images, per class
        `Dice-name`; NaN where no image has the class."""
        images = [image for part in gather(self._images) for image in part]
        empty = torch.zeros(0, len(self.vocabulary), 3)
        full = torch.stack([overlaps for _, overlaps, _ in images]) if images else empty
        small = torch.stack([overlaps for _, _, overlaps in images]) if images else empty
        if is_main_process():
            self._write([name for name, _, _ in images], dice(full), iou(full))
        per_class = 100 * dice(full).nanmean(0)
        metrics = {
            "Dice": float(per_class.nanmean()),
            "IoU": float(100 * iou(full).nanmean(0).nanmean()),
            "Dice_64": float(100 * dice(small).nanmean(0).nanmean()),
            "n": float(len(images)),
        }
        names = [category.name for category in self.vocabulary]
        return {"few_shot": metrics | {f"Dice-{name}": v for name, v in zip(names, per_class.tolist(), strict=True)}}

    def _write(self, names: list[str], dices: Tensor, ious: Tensor) -> None:
        file = io.StringIO()
        writer = csv.writer(file)
        classes = [category.name for category in self.vocabulary]
        writer.writerow(["image_id", *(f"{what} {name}" for name in classes for what in ("Dice", "IoU"))])
        for index in dices.nanmean(1).nan_to_num(2).argsort(stable=True).tolist():
            pairs = zip(dices[index].tolist(), ious[index].tolist(), strict=True)
            writer.writerow([names[index], *("" if x != x else f"{x:.4f}" for pair in pairs for x in pair)])
        write_text(self.path, file.getvalue())
