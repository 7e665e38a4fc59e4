"""What evaluators compare with: the truth of one record, from whichever annotation its data set has.

A benchmark with an annotation for each task is judged by these (`DatasetSpec.beside`).

A panoptic annotation holds the others too. Every pixel of a segment, crowd or not, is of the segment's class (so do the
semantic annotations that are made of COCO's panoptic ones); every segment of a thing class is an instance, a crowd one
with `iscrowd`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pycocotools import mask as codec
from torch import Tensor

from sam_common.contracts import Annotation, SegmentationRecord
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.label_maps import read_label_map
from sam_common.errors import UserError
from sam_common.masks.rle import checked_segmentation, encode_labels, encode_mask, segmentation_extent
from sam_common.structures import Vocabulary
from sam_common.text import some

IGNORE = -1
"""Class of the pixels that a semantic truth says nothing about."""


def records_to_judge(spec: DatasetSpec, kind: str) -> dict[int | str, Any]:
    """The records by image, with the truth of a kind where a data set beside has it.

    Its images are found by their files and its classes by their ids, since both data sets number them as they like.

    Raises:
        UserError: a data set cannot be read, or the one beside lacks an image or has a class that this one lacks.
    """
    records = {record["image_id"]: record for record in spec.load()}
    if kind not in spec.beside:
        return records
    other, vocabulary = spec.beside[kind], spec.load_vocabulary()
    index_of = {category.id: index for index, category in enumerate(vocabulary)}
    classes = other.load_vocabulary()
    if unknown := [category.name for category in classes if category.id not in index_of]:
        raise UserError(f"data set {other.name} has classes that {spec.name} lacks: {some(unknown)}")
    indices = [index_of[category.id] for category in classes]
    if kind == "semantic" and indices != list(range(len(vocabulary))):
        raise UserError(f"data set {other.name} numbers its {len(classes)} classes otherwise than {spec.name}")
    found = {os.path.abspath(record["file_name"]): record for record in other.load()}
    lacking = [record["file_name"] for record in records.values() if os.path.abspath(record["file_name"]) not in found]
    if lacking:
        raise UserError(f"data set {other.name} lacks {len(lacking)} images of {spec.name}: {some(lacking)}")
    return {image: _of_image(record, found, indices) for image, record in records.items()}


def truth_beside(spec: DatasetSpec, kind: str) -> dict[str, str]:
    """What the rules of a report say of the truth, where it is of a data set beside."""
    return {"truth": spec.beside[kind].name} if kind in spec.beside else {}


def _of_image(record: Any, found: Mapping[str, Any], indices: Sequence[int]) -> Any:
    """The record of the data set beside, under the id of the image and with the indices of its classes."""
    other = {**found[os.path.abspath(record["file_name"])], "image_id": record["image_id"]}
    if "annotations" in other:
        entries = other["annotations"]
        other["annotations"] = [{**entry, "category_id": indices[entry["category_id"]]} for entry in entries]
    return other


def read_class_map(record: SegmentationRecord) -> Tensor:
    """The class of every pixel of a panoptic or semantic record, int64 [H, W], `IGNORE` where there is none.

    Raises:
        UserError: the annotation cannot be read or contradicts the record.
    """
    if "pan_seg_file_name" not in record:
        return read_label_map(record)
    classes = [IGNORE, *(segment["category_id"] for segment in record["segments_info"])]
    return torch.tensor(classes)[read_ground_truth(record)]


def read_instances(record: SegmentationRecord, vocabulary: Vocabulary) -> list[Annotation]:
    """The things of a panoptic or instance record.

    Returns:
        COCO's `annotations` without ids: image_id, category_id (the data set's own), iscrowd, area in pixels, bbox
        [x, y, width, height] in pixels, segmentation (polygons or RLE).

    Raises:
        UserError: the annotation cannot be read or contradicts the record.
    """
    size = record["height"], record["width"]
    found = _things(record, vocabulary) if "pan_seg_file_name" in record else record["annotations"]
    nothing = encode_mask(torch.zeros(size))  # COCO's tools fail at no polygons
    instances: list[Annotation] = []
    for entry in found:
        where = f"{record['file_name']}, annotation {entry.get('id')}"
        segmentation = checked_segmentation(entry["segmentation"], *size, where)
        instances.append(
            {
                "image_id": record["image_id"],
                "category_id": vocabulary[entry["category_id"]].id,
                "iscrowd": int(entry["iscrowd"]),
                # Detectron2's reader drops the area that COCO's JSON gives.
                "area": entry["area"] if "area" in entry else segmentation_extent(segmentation, *size)[1],
                "bbox": entry["bbox"],
                "segmentation": segmentation or nothing,
            }
        )
    return instances


def _things(record: SegmentationRecord, vocabulary: Vocabulary) -> list[Annotation]:
    masks = encode_labels(read_ground_truth(record))
    nothing = encode_mask(torch.zeros(record["height"], record["width"]))
    found: list[Annotation] = []
    for index, segment in enumerate(record["segments_info"]):
        if vocabulary[segment["category_id"]].is_thing:
            rle = masks.get(index + 1, nothing)
            found.append(
                {
                    "category_id": segment["category_id"],
                    "iscrowd": segment["iscrowd"],
                    "area": int(codec.area(rle)),
                    "bbox": codec.toBbox(rle).tolist(),
                    "segmentation": rle,
                }
            )
    return found
