"""Reader of the COCO instance format: COCO itself, ADE20K as it is prepared, and what annotation tools export.

One JSON with `images`, `annotations` (one per instance, with its mask as polygons or RLE) and `categories`, and a
folder of images. Format: https://cocodataset.org/#format-data, "Object Detection".
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial

from sam_common.contracts import Annotation, SegmentationRecord
from sam_common.data.coco_json import (
    field,
    load_categories,
    parse_annotations,
    parse_categories,
    parse_images,
    read_json,
    require_files,
)
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.errors import UserError
from sam_common.masks.rle import checked_segmentation, segmentation_extent

_XYWH = 1  # Detectron2's BoxMode.XYWH_ABS


def coco_instance_spec(name: str, *, json_file: str | os.PathLike, images: str | os.PathLike) -> DatasetSpec:
    """The spec of a data set in this format: its JSON, its folder of images."""
    files = {"json": str(json_file), "images": str(images)}
    return DatasetSpec(
        name,
        load=partial(load_records, name, files),
        load_vocabulary=partial(load_categories, name, files["json"], all_things=True),
        truth="instance",
        files=files,
    )


def load_records(name: str, files: Mapping[str, str]) -> list[SegmentationRecord]:
    """One record per image, in the order of `images`, as `DatasetSpec` describes them.

    An image without annotations shows no instance of any class, so it stays. Every image must be there.

    Raises:
        UserError: a file is missing, or the JSON is not in this format or contradicts itself.
    """
    source = files["json"]
    content = read_json(name, source)
    index_of = {c.id: index for index, c in enumerate(parse_categories(content, source, all_things=True))}
    images = parse_images(content, source, files["images"])
    records: dict[int | str, SegmentationRecord] = {key: {**image, "annotations": []} for key, image in images.items()}
    for entry, record, known, where in parse_annotations(content, source, records, index_of):
        record["annotations"].append({**known, **_parse_annotation(entry, record, where)})
    require_files(name, "images", [record["file_name"] for record in records.values()])
    return list(records.values())


def _parse_annotation(entry: dict, record: SegmentationRecord, where: str) -> Annotation:
    if "segmentation" not in entry:
        raise UserError(f"{where} has no segmentation; a box alone is nothing to learn a mask from")
    size = record["height"], record["width"]
    segmentation = checked_segmentation(entry["segmentation"], *size, where)
    if "area" not in entry:
        entry = entry | {"area": segmentation_extent(segmentation, *size, where)[1]}
    return {
        "bbox": _parse_box(entry, where),
        "bbox_mode": _XYWH,
        "iscrowd": int(bool(entry.get("iscrowd", 0))),
        "segmentation": segmentation,
        "area": field(entry, "area", (int, float), where),
    }


def _parse_box(entry: dict, where: str) -> list[float]:
    box = field(entry, "bbox", list, where)
    if len(box) != 4 or not all(isinstance(value, int | float) and math.isfinite(value) for value in box):
        raise UserError(f"{where}: bbox is {box!r}, it must be [x, y, width, height] in pixels")
    return box
