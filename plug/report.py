"""Sections of a report from the files of an amodal run: `results.json` and `amodal_results.json` of its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plug.data.annotations import boxes_of, read_amodal
from plug.drawing import draw_amodal
from plug.structures import AmodalRecord
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_image
from sam_common.masks.rle import decode_segmentation
from sam_common.reporting.page import Cell, Picture, PictureRow, Table
from sam_common.reporting.run_files import evenly, read_json

METRICS = {"mIoU_full": "whole", "mIoU_occ_strict": "hidden, strict", "mIoU_occ_compat": "hidden, compat"}


def amodal_table(answers: Mapping[str, Mapping[str, float]], caption: str) -> Table:
    """Both readings of several answers to the same boxes.

    Args:
        answers: words for an answer -> its metrics, `amodal`, `amodal_merged` or `visible_as_amodal` of a result.
    """
    rows: list[list[Cell]] = [
        [name, *(means[key] for key in METRICS), means.get("AP")] for name, means in answers.items()
    ]
    header = ("answer", *(f"mIoU, {words}" for words in METRICS.values()), "AP")
    note = (
        "IoU of each object's mask in the whole picture, then the mean over objects, per cent. Hidden: what is not "
        "visible in truth, over the objects that have such a part. AP with the true boxes is an upper bound."
    )
    return Table(caption, header, rows, note=note, bars=(1, 2, 3))


def amodal_picture_rows(inference: Path, spec: DatasetSpec, *, count: int = 10) -> list[PictureRow]:
    """Input with its boxes, truth and prediction of `count` images, spread evenly over the data set: nobody chose them.

    Args:
        inference: the folder of one data set's evaluation, with `amodal_results.json`.
        spec: of that data set.
    """
    found: dict[int | str, list[dict[str, Any]]] = {}
    for entry in read_json(inference / "amodal_results.json"):
        if entry["annotation_id"] is not None:
            found.setdefault(entry["image_id"], []).append(entry)
    records = [record for record in spec.load() if record["image_id"] in found]
    chosen = (records[index] for index in evenly(len(records), count))
    return [_picture_row(record, found[record["image_id"]]) for record in chosen]


def _picture_row(record: AmodalRecord, entries: Sequence[dict[str, Any]]) -> PictureRow:
    """`entries`: the results of this image; objects that no box was of are not drawn."""
    by_id = {entry["id"]: entry for entry in record["annotations"]}
    truth = record | {"annotations": [by_id[entry["annotation_id"]] for entry in entries]}
    amodal, visible = (list(masks.numpy()) for masks in read_amodal(truth))
    size = record["height"], record["width"]
    predicted, seen = (
        [
            decode_segmentation(entry.get(key, entry["segmentation"]), *size, record["file_name"]).numpy()
            for entry in entries
        ]
        for key in ("segmentation", "visible_segmentation")
    )
    image = read_image(record["file_name"]).permute(1, 2, 0).numpy()
    nothing = [np.zeros(size, bool)] * len(entries)
    name = Path(record["file_name"]).name
    pictures = (
        Picture(
            "Input and boxes",
            draw_amodal(image, nothing, nothing, boxes_of(truth["annotations"], "visible_bbox").numpy()),
            f"Input: {name}",
        ),
        Picture("Truth", draw_amodal(image, amodal, visible), f"Truth: {len(entries)} objects"),
        Picture("Prediction", draw_amodal(image, predicted, seen), f"Prediction: {len(entries)} objects"),
    )
    whole = float(np.mean([entry["iou"]["full"] for entry in entries]))
    hidden = [entry["iou"]["occluded"] for entry in entries if entry["hidden"]["strict"]]
    of_hidden = f"{100 * float(np.mean(hidden)):.1f}" if hidden else "none"
    return PictureRow(
        pictures, f"{name} · IoU of this picture's whole objects {100 * whole:.1f}, hidden parts {of_hidden}"
    )
