"""What evaluators compare with: the truth of one record, from whichever annotation its data set has.

A panoptic annotation holds the others too. Every pixel of a segment, crowd or not, is of the segment's class (so do the
semantic annotations that are made of COCO's panoptic ones); every segment of a thing class is an instance, a crowd one
with `iscrowd`.
"""

from __future__ import annotations

import torch
from pycocotools import mask as codec
from torch import Tensor

from sam_common.contracts import Annotation, SegmentationRecord
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.label_maps import read_label_map
from sam_common.masks.rle import checked_segmentation, encode_labels, encode_mask, segmentation_extent
from sam_common.structures import Vocabulary

IGNORE = -1
"""Class of the pixels that a semantic truth says nothing about."""


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
