"""Reader of the COCO panoptic format: COCO itself, ADE20K as it is prepared, and anyone's own files.

One JSON with `images`, `annotations` (per image a PNG of segment ids and the list `segments_info`) and `categories`;
a folder of images; a folder of PNGs. Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sam_common.contracts import SegmentationRecord, SegmentInfo
from sam_common.data.coco_json import (
    CROWD,
    file_in,
    load_categories,
    parse_categories,
    parse_images,
    read_json,
    require_files,
    warn_of_unused_classes,
)
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import MAX_SEGMENT_ID, read_segment_ids
from sam_common.data.json_values import field, flag, known_id, number
from sam_common.data.remarks import Remarks, log_once
from sam_common.errors import UserError
from sam_common.io.lossy import lossy_format
from sam_common.masks.rle import run_starts
from sam_common.text import some


def coco_panoptic_spec(
    name: str, *, json_file: str | os.PathLike, images: str | os.PathLike, panoptic: str | os.PathLike
) -> DatasetSpec:
    """The spec of a data set in this format: its JSON, its folder of images, its folder of PNGs."""
    files = {"json": str(json_file), "images": str(images), "panoptic": str(panoptic)}
    return DatasetSpec(
        name,
        load=partial(load_records, name, files),
        load_vocabulary=partial(load_categories, name, files["json"]),
        files=files,
    )


def load_records(name: str, files: Mapping[str, str]) -> list[SegmentationRecord]:
    """One record per annotated image, in the order of `annotations`, as `DatasetSpec` describes them.

    Images without an annotation are skipped. Every image and PNG must be there; what is in them is checked when it is
    read.

    Raises:
        UserError: a file is missing, the JSON is not in this format or contradicts itself, or all of it are crowds.
    """
    source = files["json"]
    content = read_json(name, source)
    vocabulary = parse_categories(content, source)
    index_of = {category.id: index for index, category in enumerate(vocabulary)}
    images = parse_images(content, source, files["images"])
    records: dict[int | str, SegmentationRecord] = {}
    remarks, used = Remarks(source), set()
    for annotation in field(content, "annotations", list, source):
        image_id = known_id(annotation, "image_id", images, f"{source}, annotations")
        where = f"{source}, the annotation of image {image_id!r}"
        if image_id in records:
            raise UserError(f"{where}: there are two")
        records[image_id] = {
            **images[image_id],
            "pan_seg_file_name": file_in(files["panoptic"], annotation, where),
            "segments_info": _parse_segments(annotation, index_of, where),
        }
        for segment in records[image_id]["segments_info"]:
            used.add(segment["category_id"])
            if segment["iscrowd"]:
                remarks.add(CROWD, f"{segment['id']} of image {image_id!r}")
    remarks.require_some(any(not s["iscrowd"] for record in records.values() for s in record["segments_info"]))
    require_files(name, "images", [record["file_name"] for record in records.values()])
    require_files(name, "panoptic", [record["pan_seg_file_name"] for record in records.values()])
    remarks.warn()
    warn_of_unused_classes(source, vocabulary, used)
    if skipped := len(images) - len(records):
        log_once(f"{source}: {skipped} of {len(images)} images have no annotation and are skipped", logging.INFO)
    return list(records.values())


def read_ground_truth(record: SegmentationRecord) -> Tensor:
    """The annotation of one record: int64 [H, W], k+1 where `segments_info[k]` is, 0 where void.

    A segment of `segments_info` may have no pixel: ADE20K's things are pasted over its stuff.

    Raises:
        UserError: the PNG cannot be read, is of another size than the record says, or holds an id that
            `segments_info` lacks.
    """
    return index_truth(record, read_true_ids(record))


def read_true_ids(record: SegmentationRecord) -> Tensor:
    """The PNG of one record: segment ids int32 [H, W], 0 where void.

    Raises:
        UserError: it cannot be read, or is of another size than the record says.
    """
    path = record["pan_seg_file_name"]
    ids = read_segment_ids(path)
    if ids.shape != (record["height"], record["width"]):
        height, width = ids.shape
        raise UserError(f"{path} is {width}×{height} but its JSON says {record['width']}×{record['height']}")
    return ids


def index_truth(record: SegmentationRecord, ids: Tensor) -> Tensor:
    """Segment ids of one record's PNG, all of them or some, int32, as `read_ground_truth` numbers them, int64.

    Raises:
        UserError: there is an id that `segments_info` lacks.
    """
    listed = torch.tensor([segment["id"] for segment in record["segments_info"]], dtype=torch.int32)
    labels, unknown = index_segments(ids, listed)
    if len(unknown):
        path = record["pan_seg_file_name"]
        lossy = lossy_format(path)
        hint = f"; a {lossy} file does not keep ids, save it as PNG" if lossy else ""
        shown = some(unknown.tolist(), most=5)
        raise UserError(f"{path} disagrees with its JSON: segments_info lacks the ids {shown}{hint}")
    return labels


def index_segments(ids: Tensor, listed: Tensor) -> tuple[Tensor, Tensor]:
    """Replaces segment ids by their place in a list.

    Args:
        ids: int32 of any shape, 0 where void.
        listed: [N] int32, distinct, none of them 0.

    Returns:
        int64 of the same shape, k+1 where `listed[k]` is, 0 where void; and the ids that are not listed, sorted.
    """
    table, place = torch.cat([listed.new_zeros(1), listed]).sort()
    pixels = ids.numpy().ravel()
    starts = run_starts(pixels)  # far fewer than pixels
    runs = torch.from_numpy(pixels[starts])
    position = torch.searchsorted(table, runs).clamp_(max=len(listed))
    unknown = table[position] != runs
    places = np.repeat(place[position].numpy(), np.diff(starts, append=pixels.size))
    return torch.from_numpy(places).view(ids.shape), runs[unknown].unique()


def _parse_segments(annotation: dict, index_of: dict[int, int], where: str) -> list[SegmentInfo]:
    segments: dict[int, SegmentInfo] = {}
    for entry in field(annotation, "segments_info", list, where):
        segment_id = number(entry, "id", where)
        category_id = number(entry, "category_id", where)
        if not 0 < segment_id <= MAX_SEGMENT_ID:
            raise UserError(f"{where}: segment id {segment_id} is outside 1..{MAX_SEGMENT_ID} (0 is void)")
        if segment_id in segments:
            raise UserError(f"{where}: two segments have the id {segment_id}")
        if category_id not in index_of:
            raise UserError(f"{where}: segment {segment_id} has the category_id {category_id}, not in categories")
        segments[segment_id] = {
            "id": segment_id,
            "category_id": index_of[category_id],
            "iscrowd": int(flag(entry, "iscrowd", where, default=False)),
            "area": field({"area": 0} | entry, "area", (int, float), where),
        }
    return list(segments.values())
