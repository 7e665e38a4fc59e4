"""The amodal kind of truth: of each object the mask of the whole (amodal) and of what is seen of it (visible).

A record's `annotations` are {id, category_id, iscrowd 0, bbox, bbox_mode 1, segmentation, visible_segmentation,
visible_bbox, area}: the segmentations as `rle.Segmentation` has them, the boxes tight around their masks, [x, y,
width, height] in pixels, the area that of the amodal mask. Boxes that a file gives are not used: two tools that
disagree on them would train two models. Visible pixels outside the amodal mask are kept as they were annotated.
"""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from plug.structures import AmodalAnnotation, AmodalRecord
from sam_common.contracts import ImageRecord
from sam_common.data.coco_json import Known, require_files
from sam_common.masks.rle import Segmentation, decode_segmentation, segmentation_extent
from sam_common.text import some

logger = logging.getLogger(__name__)

XYWH = 1  # Detectron2's BoxMode.XYWH_ABS

EMPTY_AMODAL = "an empty amodal mask"
EMPTY_VISIBLE = "an empty visible mask"
CROWD = "a crowd instead of an object"


class AmodalAnnotations:
    """Fills records with annotations, and keeps count of those that nothing can be learned from.

    Args:
        source: the file they are from, for messages.
        images: the images by their id, of which the records are made.
    """

    def __init__(self, source: str, images: Mapping[int | str, ImageRecord]) -> None:
        self.source = source
        self.records: dict[int | str, AmodalRecord] = {
            key: {**image, "annotations": []} for key, image in images.items()
        }
        self.left_out: dict[str, list[int | str]] = defaultdict(list)

    def add(self, record: AmodalRecord, known: Known, amodal: Segmentation, visible: Segmentation, where: str) -> None:
        """Adds one object to its record; one of whom nothing is seen, or nothing is there, is left out.

        Args:
            known: its id and its category_id, an index.
            amodal, visible: checked segmentations.

        Raises:
            UserError: a segmentation is damaged.
        """
        size = record["height"], record["width"]
        (box, area), (visible_box, seen) = (segmentation_extent(mask, *size, where) for mask in (amodal, visible))
        if not area or not seen:
            self.leave_out(EMPTY_VISIBLE if area else EMPTY_AMODAL, known["id"])
            return
        record["annotations"].append(
            {
                **known,
                "iscrowd": 0,
                "bbox": box,
                "bbox_mode": XYWH,
                "segmentation": amodal,
                "area": area,
                "visible_segmentation": visible,
                "visible_bbox": visible_box,
            }
        )

    def leave_out(self, reason: str, name: int | str) -> None:
        """Counts an annotation that is not used, by its id or what else finds it in the file."""
        self.left_out[reason].append(name)

    def finish(self, name: str) -> list[AmodalRecord]:
        """The records of data set `name`; one warning says how many annotations were left out, why, and names the first
        of them.

        Raises:
            UserError: an image is missing.
        """
        require_files(name, "images", [record["file_name"] for record in self.records.values()])
        if self.left_out:
            reasons = (f"{len(ids)} × {reason} ({some(ids, most=8)})" for reason, ids in self.left_out.items())
            warn_once(f"{self.source}: annotations are left out: {'; '.join(reasons)}")
        return list(self.records.values())


def read_amodal(record: AmodalRecord) -> tuple[Tensor, Tensor]:
    """The amodal and the visible masks of a record, two bool [N, H, W] in the order of its annotations.

    Raises:
        UserError: a segmentation is damaged.
    """
    size = record["height"], record["width"]
    masks = torch.zeros(2, len(record["annotations"]), *size, dtype=torch.bool)
    for index, entry in enumerate(record["annotations"]):
        where = f"{record['file_name']}, annotation {entry['id']!r}"
        for kind, mask in enumerate((entry["segmentation"], entry["visible_segmentation"])):
            masks[kind, index] = decode_segmentation(mask, *size, where)
    return masks[0], masks[1]


def boxes_of(annotations: Sequence[AmodalAnnotation], key: Literal["bbox", "visible_bbox"]) -> Tensor:
    """The boxes `bbox` or `visible_bbox` of annotations as XYXY, float32 [N, 4]."""
    boxes = torch.tensor([entry[key] for entry in annotations], dtype=torch.float32).reshape(-1, 4)
    return torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)


def group_instances(records: Sequence[AmodalRecord], size: int) -> list[AmodalRecord]:
    """Training records of at most `size` annotations: what is loaded together, so that a file is decoded once for it.

    The annotations of an image are split into as few groups as possible, of nearly equal size, in their order. Images
    without objects teach nothing and are left out; a log line counts them.

    Args:
        size: at least 1.
    """
    groups: list[AmodalRecord] = []
    for record in records:
        entries = record["annotations"]
        count = -(-len(entries) // size)
        cuts = [len(entries) * part // count for part in range(count + 1)] if count else []
        groups += [{**record, "annotations": entries[a:b]} for a, b in pairwise(cuts)]
    if empty := sum(not record["annotations"] for record in records):
        logger.info("%d of %d training images show no object and are left out", empty, len(records))
    return groups


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning; a data set is read more than once in a run."""
    logger.warning(message)
