"""The masks of a record, from any kind of truth: a panoptic PNG, instances (which may overlap), or a label map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sam_common.contracts import Annotation, SegmentationRecord
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.label_maps import read_label_map
from sam_common.errors import UserError
from sam_common.masks.rle import decode_segmentation

Move = Callable[[Tensor], Tensor]
"""Takes a layer [1, H, W], uint8 or float32, to [1, h, w] without making new values, as nearest resizing does."""


def read_targets(record: SegmentationRecord, move: Move) -> tuple[Tensor, Tensor]:
    """What a model learns of a record: classes int64 [N], masks bool [N, h, w], where `move` has taken them.

    Of a label map, each class that occurs is a segment; instances may overlap. Crowd regions are no targets, nor are
    segments that have no pixel, or none left.

    Raises:
        UserError: the annotation cannot be read or contradicts the record, or the record has none.
    """
    if _has_instances(record):
        # One by one: before the crop of a large jitter, all together would take hundreds of megabytes.
        chosen = [entry for entry in record["annotations"] if not entry["iscrowd"]]
        classes, masks = _read_instances(record, chosen, move)
    else:
        classes, crowd, labels = _read_disjoint(record)
        targets = (~crowd).nonzero().flatten()
        classes = classes[targets]
        masks = move(_renumber(labels, targets, len(crowd))) == _numbers(len(targets))
    visible = masks.flatten(1).any(1)
    return classes[visible], masks[visible]


def column(entries: Sequence[Any], key: str) -> Tensor:
    """A key of N annotations or segments, int64 [N]."""
    return torch.tensor([int(entry[key]) for entry in entries], dtype=torch.int64)


def _has_instances(record: SegmentationRecord) -> bool:
    return "annotations" in record and "pan_seg_file_name" not in record


def _read_instances(record: SegmentationRecord, entries: list[Annotation], move: Move) -> tuple[Tensor, Tensor]:
    size = record["height"], record["width"]
    layers = [move(torch.zeros(1, *size, dtype=torch.uint8))[:0]]  # the shape, where there are no instances
    for entry in entries:
        mask = decode_segmentation(entry["segmentation"], *size, f"{record['file_name']}, annotation {entry.get('id')}")
        layers.append(move(mask[None].to(torch.uint8)))
    return column(entries, "category_id"), torch.cat(layers).bool()


def _read_disjoint(record: SegmentationRecord) -> tuple[Tensor, Tensor, Tensor]:
    """Classes int64 [N], crowd bool [N], and one map for all: int64 [H, W], k+1 at segment k, 0 where void."""
    if "pan_seg_file_name" in record:
        info = record["segments_info"]
        return column(info, "category_id"), column(info, "iscrowd").bool(), read_ground_truth(record)
    if "sem_seg_file_name" not in record:
        raise UserError(f"{record['file_name']} has no annotation; its data set is not for training")
    values, places = read_label_map(record).unique(return_inverse=True)
    has_void = int(values[0]) < 0
    classes = values[1:] if has_void else values
    return classes, torch.zeros(len(classes), dtype=torch.bool), places if has_void else places + 1


def _renumber(labels: Tensor, targets: Tensor, count: int) -> Tensor:
    """A map with k+1 at segment k of `count` to a layer with j+1 at segment targets[j], else 0."""
    dtype = torch.uint8 if len(targets) < 256 else torch.float32  # the types that nearest resizing knows
    new_value = torch.zeros(count + 1, dtype=dtype)
    new_value[targets + 1] = torch.arange(1, len(targets) + 1, dtype=dtype)
    return new_value[labels][None]


def _numbers(count: int) -> Tensor:
    """1 … count as [count, 1, 1], to compare a map with."""
    return torch.arange(1, count + 1)[:, None, None]
