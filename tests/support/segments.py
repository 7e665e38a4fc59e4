"""All segments of a record, those too that are no targets."""

from __future__ import annotations

import torch
from torch import Tensor

from possam.data.segments import _has_instances, _numbers, _read_disjoint, _read_instances
from sam_common.contracts import SegmentationRecord


def read_segments(record: SegmentationRecord) -> tuple[Tensor, Tensor, Tensor]:
    """At the size of the image: classes int64 [N], masks bool [N, H, W], crowd bool [N]; some may have no pixel."""
    if _has_instances(record):
        entries = record["annotations"]
        crowd = torch.tensor([bool(entry["iscrowd"]) for entry in entries], dtype=torch.bool)
        return *_read_instances(record, entries, lambda layer: layer), crowd
    classes, crowd, labels = _read_disjoint(record)
    return classes, labels == _numbers(len(classes)), crowd
