"""Reader of the COCO instance format: COCO itself, ADE20K as it is prepared, and what annotation tools export.

One JSON with `images`, `annotations` (one per instance, with its mask as polygons or RLE) and `categories`, and a
folder of images. Format: https://cocodataset.org/#format-data, "Object Detection".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from operator import mul
from typing import Any

from pycocotools import mask as codec

from sam_common.boxes.boxes import is_near, is_xywh
from sam_common.contracts import Annotation, SegmentationRecord
from sam_common.data.coco_json import (
    CROWD,
    Known,
    Mask,
    load_categories,
    measure,
    parse_annotations,
    parse_categories,
    parse_images,
    read_json,
    read_segmentation,
    require_files,
    warn_of_unused_classes,
)
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.json_values import flag
from sam_common.data.remarks import Remarks

NO_MASK = "an annotation without a mask in its image, left out (export masks or polygons; pycocotools counts a miss)"
NO_BOX = "an annotation without a bbox, taken from its mask"
OTHER_BOX = "a bbox that does not fit its mask, replaced by the mask's (pycocotools would use the file's)"
OTHER_AREA = "an area that is not a positive number, replaced by the mask's (pycocotools would use the file's)"

_XYWH = 1  # Detectron2's BoxMode.XYWH_ABS
_LARGEST = 1e9


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

    An image without annotations shows no instance of any class, so it stays. Every image must be there. Annotations
    without a mask are left out and boxes that are wrong are taken from the mask; warnings count them.

    Raises:
        UserError: a file is missing, the JSON is not in this format or contradicts itself, or no instance is left.
    """
    source = files["json"]
    content = read_json(name, source)
    vocabulary = parse_categories(content, source, all_things=True)
    index_of = {category.id: index for index, category in enumerate(vocabulary)}
    images = parse_images(content, source, files["images"])
    records: dict[int | str, SegmentationRecord] = {key: {**image, "annotations": []} for key, image in images.items()}
    remarks = Remarks(source)
    for entry, record, known, where in parse_annotations(content, source, records, index_of):
        mask = _read_mask(entry, record, where)
        if mask is None:
            remarks.add(NO_MASK, known["id"])
        else:
            record["annotations"].append(_annotation(entry, known, mask, where, remarks))
    require_files(name, "images", [record["file_name"] for record in records.values()])
    annotations = [annotation for record in records.values() for annotation in record["annotations"]]
    remarks.require_some(any(not annotation["iscrowd"] for annotation in annotations))
    remarks.warn()
    warn_of_unused_classes(source, vocabulary, {annotation["category_id"] for annotation in annotations})
    return list(records.values())


def _read_mask(entry: dict, record: SegmentationRecord, where: str) -> Mask | None:
    """The mask of an annotation, None where it has no pixel.

    Where the box and the area that the file gives are plausible, they are taken: measuring draws the mask, which takes
    as long as reading its JSON.
    """
    segmentation = read_segmentation(entry.get("segmentation"), record, where)
    if segmentation is None:
        return None
    box: Any = entry.get("bbox")
    area: Any = entry.get("area")
    if isinstance(segmentation, list) and is_xywh(box) and _is_area(area):
        outline, enclosed = _outline(segmentation)
        left, top, width, height = outline
        is_inside = left >= 0 and top >= 0 and left + width <= record["width"] and top + height <= record["height"]
        covers_pixels = is_inside and enclosed >= 2 * max(width, height)  # no sliver between the centres of pixels
        if covers_pixels and is_near(box, outline):
            return Mask(segmentation, box, area)
    return measure(segmentation, record)


def _outline(polygons: list[list[float]]) -> tuple[list[float], float]:
    """The box [x, y, width, height] around polygons, and the area that the largest of them encloses."""
    all_x, all_y, doubled = [], [], 0.0
    for polygon in polygons:
        x, y = polygon[::2], polygon[1::2]
        doubled = max(doubled, abs(sum(map(mul, x, y[1:] + y[:1])) - sum(map(mul, y, x[1:] + x[:1]))))
        all_x += x
        all_y += y
    left, top = min(all_x), min(all_y)
    return [left, top, max(all_x) - left, max(all_y) - top], doubled / 2


def _annotation(entry: dict, known: Known, mask: Mask, where: str, remarks: Remarks) -> Annotation:
    if crowd := flag(entry, "iscrowd", where, default=False):
        remarks.add(CROWD, known["id"])
    box: Any = entry.get("bbox")
    area: Any = entry.get("area")
    if not box:
        remarks.add(NO_BOX, known["id"])
    elif box is not mask.box and not _is_box_of(box, mask.box):
        remarks.add(OTHER_BOX, known["id"])
        box = None
    if area is not None and not _is_area(area):
        remarks.add(OTHER_AREA, known["id"])
        area = None
    return {
        **known,
        "bbox": box or mask.box,
        "bbox_mode": _XYWH,
        "iscrowd": int(crowd),
        "segmentation": mask.segmentation,
        "area": mask.area if area is None else area,
    }


def _is_box_of(box: Any, tight: list[int]) -> bool:
    """Whether a file's box [x, y, width, height] may be that of the mask whose own is `tight`.

    Not where it overlaps with it by less than half, or fits it better when read as corners [x0, y0, x1, y1].
    """
    if not is_xywh(box):
        return False
    x, y, right, bottom = box
    return is_near(box, tight) or _iou(box, tight) >= max(0.5, _iou([x, y, right - x, bottom - y], tight))


def _iou(box: list[float], other: list[int]) -> float:
    return float(codec.iou([box], [other], [0])[0, 0]) if min(box[2:]) > 0 else 0.0


def _is_area(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= _LARGEST
