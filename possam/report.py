"""Sections of a report from the files of a panoptic run: `metrics.json` and what evaluation left in `inference/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from possam.data.segments import column
from sam_common.contracts import PanopticSegment, SegmentationRecord
from sam_common.data.coco_panoptic import coco_panoptic_spec, read_ground_truth
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_image
from sam_common.evaluation.class_groups import GROUPS, seen_classes
from sam_common.evaluation.panoptic_quality import METRICS, joint_areas, match_segments, panoptic_quality
from sam_common.reporting.drawing import draw_panoptic
from sam_common.reporting.page import Cell, Picture, PictureRow, Table
from sam_common.reporting.run_files import evenly
from sam_common.structures import Vocabulary

_LETTERS = 1.35  # three pictures share a row, so their words are set larger


def quality_table(quality: dict[str, Any], caption: str) -> Table:
    """PQ, SQ and RQ of each group of classes, from `panoptic_quality.json`."""
    means = quality["means"]
    rows: list[list[Cell]] = []
    for group, suffix in GROUPS.items():
        if f"n{suffix}" in means:
            rows.append([group, *(means.get(f"{key}{suffix}") for key in METRICS), int(means[f"n{suffix}"])])
    note = "PQ = SQ × RQ per class, then averaged over the classes; per cent, higher is better."
    return Table(caption, ("classes", *METRICS, "number of classes"), rows, note=note, bars=(1,))


def class_table(quality: dict[str, Any]) -> Table:
    """Every class with its kind, whether the training had it, and its quality; best first."""
    kinds = {True: "seen", False: "unseen", None: ""}
    classes = sorted(quality["classes"], key=lambda entry: -(entry["PQ"] if entry["PQ"] is not None else -1))
    rows: list[list[Cell]] = [
        [
            entry["name"],
            "thing" if entry["isthing"] else "stuff",
            kinds[entry["seen"]],
            *(entry[key] for key in METRICS),
            *(entry[key] for key in ("tp", "fp", "fn")),
        ]
        for entry in classes
    ]
    header = ("class", "kind", "in training", *METRICS, "matched", "false", "missed")
    return Table("Every class, best first", header, rows, bars=(3,), folded=True)


def picture_rows(
    inference: Path, spec: DatasetSpec, *, training_vocabulary: Vocabulary, count: int = 10
) -> list[PictureRow]:
    """Input, truth and prediction of `count` images, spread evenly over the data set: nobody chose the good ones.

    Args:
        inference: the folder of one data set's evaluation, with `predictions.json` and `predictions/`.
        spec: of that data set.
        training_vocabulary: the classes of the training; words outside it are marked.
    """
    predicted = coco_panoptic_spec(
        "predictions",
        json_file=inference / "predictions.json",
        images=spec.files["images"],
        panoptic=inference / "predictions",
    )
    vocabulary = spec.load_vocabulary()
    seen = seen_classes(vocabulary, training_vocabulary).tolist()
    predictions = {record["image_id"]: record for record in predicted.load()}
    records = [record for record in spec.load() if record["image_id"] in predictions]
    chosen = evenly(len(records), count)
    return [_picture_row(records[i], predictions[records[i]["image_id"]], vocabulary, seen) for i in chosen]


def image_quality(
    truth: SegmentationRecord, prediction: SegmentationRecord, labels: tuple[Tensor, Tensor], num_classes: int
) -> float:
    """The PQ of one image over all of its segments together, per cent; NaN where there are none.

    Args:
        truth, prediction: records with `segments_info`.
        labels: of both, [H, W] int64 from `read_ground_truth`.
    """
    true, found = truth["segments_info"], prediction["segments_info"]
    classes = column(true, "category_id"), column(true, "iscrowd").bool(), column(found, "category_id")
    counts = match_segments(joint_areas(*labels, len(true), len(found)), *classes, num_classes)
    return float(panoptic_quality(counts.sum(0, keepdim=True))[0, 0])


def _picture_row(
    record: SegmentationRecord, prediction: SegmentationRecord, vocabulary: Vocabulary, seen: list[bool]
) -> PictureRow:
    image = read_image(record["file_name"]).permute(1, 2, 0).numpy()
    labels = read_ground_truth(record), read_ground_truth(prediction)
    truth = _draw("Truth", image, labels[0], record, vocabulary)
    drawn = _draw("Prediction", image, labels[1], prediction, vocabulary)
    name = Path(record["file_name"]).name
    height, width = truth.pixels.shape[:2]
    original = Picture("Input", cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), f"Input: {name}")
    quality = image_quality(record, prediction, labels, len(vocabulary))
    unseen = {segment["category_id"] for segment in record["segments_info"] if not seen[segment["category_id"]]}
    return PictureRow(
        (original, truth, drawn),
        f"{name} · PQ of this picture {quality:.1f}",
        "never shown in training:",
        [vocabulary[index].name for index in sorted(unseen)],
    )


def _draw(title: str, image: np.ndarray, labels: Tensor, record: SegmentationRecord, vocabulary: Vocabulary) -> Picture:
    segments: list[PanopticSegment] = [
        {"id": index, "category_id": segment["category_id"]}
        for index, segment in enumerate(record["segments_info"], start=1)
    ]
    words = ", ".join(vocabulary[segment["category_id"]].name for segment in segments) or "nothing"
    pixels = draw_panoptic(image, labels.numpy(), segments, vocabulary, letters=_LETTERS)
    return Picture(title, pixels, f"{title}: {words}")
