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
import math
import os
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from amsam.data.image_masks import read_labels
from amsam.structures import FewShotInput, FewShotOutput, MaskRecord
from sam_common.errors import UserError
from sam_common.evaluation.evaluator import Evaluator, Results
from sam_common.io.files import write_text
from sam_common.layers.processes import gather, is_main_process

SMALL = 64
"""Side of the coarse variant, pixels."""

METRICS = ("Dice", "IoU", f"Dice_{SMALL}")


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


Scores = dict[str, float]
"""Of one image: `Dice name`, `IoU name` and `Dice_64 name` of each class in [0, 1], NaN where the class is in neither;
`no_box`, 1 where none was found, so that the whole image was the box."""


def means(images: Iterable[Scores], classes: Sequence[str]) -> dict[str, float]:
    """Per cent: `Dice`, `IoU` and `Dice_64`, means over classes of their means over images, and of each class the
    `Dice-name`; `no_box`, the share of images; `n` of them. NaN where there is nothing to average."""
    rows = list(images)
    of_classes = {name: [100 * _mean(row[f"{name} {word}"] for row in rows) for word in classes] for name in METRICS}
    per_class = {f"Dice-{word}": value for word, value in zip(classes, of_classes["Dice"], strict=True)}
    all_classes = {name: _mean(values) for name, values in of_classes.items()}
    return all_classes | {"no_box": 100 * _mean(row["no_box"] for row in rows), "n": float(len(rows))} | per_class


def mean_dice(image: Scores) -> float:
    """The mean Dice of one image over its classes; NaN where it has none."""
    return _mean(value for name, value in image.items() if name.startswith("Dice "))


def read_scores(path: str | os.PathLike) -> dict[str, Scores]:
    """The scores of every image, by its id, worst first, from the CSV of an evaluation.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {
                row.pop("image_id"): {name: float(value or "nan") for name, value in row.items()}
                for row in csv.DictReader(file)
            }
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}; run the evaluation again") from error


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


class DiceEvaluator(Evaluator):
    """Compares `few_shot`, K+1 probabilities with the background first, with masks in a folder.

    Writes `dice_per_image.csv` into `output_dir`: image_id, `no_box`, then Dice, IoU and Dice_64 of each class, worst
    images first; `read_scores` reads it. It does not look at the classes trained on.
    """

    judges = ("few_shot",)
    rules: Mapping[str, str] = {
        "Dice": "per image and class, mean over images, then over classes; at full resolution",
        "Dice_64": "at 64 × 64 pixels, as BLO-SAM's code compares",
        "empty": "an image without a class in truth and prediction does not count for it; in only one of them it is 0",
        "no_box": "images, per cent, in which no box was found: the whole image was the box",
    }

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self.classes = [category.name for category in self.vocabulary]
        self._scores: list[tuple[str, Scores]] = []

    def judge(self, record: MaskRecord, item: FewShotInput, output: FewShotOutput) -> None:
        """Counts an image: `few_shot` [K+1, H, W] at its size."""
        probabilities, truth = output["few_shot"].float().cpu(), read_labels(record)
        if probabilities.shape != (len(self.classes) + 1, *truth.shape):
            raise ValueError(f"the prediction of {record['file_name']} is {tuple(probabilities.shape)}")
        scores = {"no_box": float(not item.get("box_found", True))}
        self._scores.append((str(record["image_id"]), scores | self._score(probabilities, truth)))

    def _score(self, probabilities: Tensor, truth: Tensor) -> Scores:
        full = class_overlaps(probabilities.argmax(0), truth, len(self.classes))
        measured = dict(zip(METRICS, (dice(full), iou(full), dice(small_overlaps(probabilities, truth))), strict=True))
        return {
            f"{name} {word}": float(values[index])
            for index, word in enumerate(self.classes)
            for name, values in measured.items()
        }

    def evaluate(self) -> Results:
        """`{"few_shot": means(…)}` over all ranks."""
        images = [image for part in gather(self._scores) for image in part]
        if is_main_process():
            self._write(images)
        return {"few_shot": means((scores for _, scores in images), self.classes)}

    def _write(self, images: Sequence[tuple[str, Scores]]) -> None:
        columns = [f"{name} {word}" for word in self.classes for name in METRICS]
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(["image_id", "no_box", *columns])
        for name, scores in sorted(images, key=lambda image: (math.isnan(mean_dice(image[1])), mean_dice(image[1]))):
            cells = ("" if math.isnan(scores[column]) else f"{scores[column]:.6f}" for column in columns)
            writer.writerow([name, f"{scores['no_box']:.0f}", *cells])
        write_text(self.output_dir / "dice_per_image.csv", file.getvalue())
