"""Sections of a report from few-shot evaluations: scores over seeds, and the worst images drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from amsam.data.image_masks import read_labels
from amsam.evaluation import METRICS, Scores, mean_dice
from amsam.structures import MaskRecord
from sam_common.data.images import read_image
from sam_common.reporting.drawing import draw_panoptic
from sam_common.reporting.page import Cell, Picture, PictureRow, Spread, Table
from sam_common.structures import Vocabulary

BOX_COLOR = (255, 196, 0)
_LETTERS = 1.35  # three pictures share a row, so their words are set larger


def scores_table(answers: Mapping[str, Sequence[Mapping[str, float]]], caption: str) -> Table:
    """Several answers to the same images, mean and standard deviation over seeds.

    Args:
        answers: words for an answer -> its `means` of each seed.
    """
    rows: list[list[Cell]] = [
        [words, *(Spread.of([means[name] for means in seeds]) for name in METRICS)] for words, seeds in answers.items()
    ]
    note = (
        "Per cent. Dice of each image and class, mean over images, then over classes; of several seeds the mean ± the "
        "standard deviation. Dice_64 compares at 64 × 64 pixels, as BLO-SAM's code does."
    )
    return Table(caption, ("answer", *METRICS), rows, note=note, bars=(1,))


def class_table(seeds: Sequence[Mapping[str, float]], classes: Sequence[str]) -> Table:
    """Dice of each class, mean and standard deviation over seeds; a class that no tested image has is not measured."""
    rows: list[list[Cell]] = [[name, Spread.of([means[f"Dice-{name}"] for means in seeds])] for name in classes]
    return Table("Dice of each class", ("class", "Dice"), rows, bars=(1,))


def worst(scores: Mapping[str, Scores], count: int) -> list[str]:
    """The ids of the `count` images of the least Dice, the worst first; images without a Dice are left out."""
    known = {name: value for name, image in scores.items() if not math.isnan(value := mean_dice(image))}
    return sorted(known, key=lambda name: known[name])[:count]


def picture_row(
    record: MaskRecord, boxes: Tensor, predicted: Tensor, vocabulary: Vocabulary, scores: Scores
) -> PictureRow:
    """Input, truth and prediction, each with the boxes that prompted the model.

    Args:
        record: of `image_masks`.
        boxes: [n, 4] XYXY in pixels.
        predicted: [H, W], 0 the background, 1 … K.
        scores: of this image.
    """
    image = read_image(record["file_name"]).permute(1, 2, 0).numpy()
    truth = read_labels(record)
    name = Path(record["file_name"]).name
    pictures = [
        Picture(title, _draw(image, labels, boxes, vocabulary), f"{title}: {name}")
        for title, labels in (("Input and box", 0 * truth), ("Truth", truth), ("Prediction", predicted))
    ]
    found = "" if not scores["no_box"] else " · no box was found: it is the whole image"
    return PictureRow(pictures, f"{name} · Dice {100 * mean_dice(scores):.1f}{found}")


def _draw(image: np.ndarray, labels: Tensor, boxes: Tensor, vocabulary: Vocabulary) -> np.ndarray:
    present = [label for label in labels.unique().tolist() if label > 0]
    segments = [{"id": label, "category_id": label - 1} for label in present]
    canvas = np.array(draw_panoptic(image, labels.numpy(), segments, vocabulary, letters=_LETTERS))
    height, width = canvas.shape[:2]
    line = max(2, round(0.006 * max(height, width)))
    corners = boxes.numpy() * np.tile((width / image.shape[1], height / image.shape[0]), 2)
    least, most = line // 2, np.array([width, height] * 2) - 1 - line // 2  # a box of the whole image stays in sight
    for x0, y0, x1, y1 in corners.round().clip(least, most).astype(int).tolist():
        cv2.rectangle(canvas, (x0, y0), (x1, y1), BOX_COLOR, line, cv2.LINE_AA)
    return canvas
