"""The amodal kind of truth: of each object the mask of the whole (amodal) and of what is seen of it (visible).

A record's `annotations` are {id, category_id, iscrowd 0, bbox, bbox_mode 1, segmentation, visible_segmentation,
visible_bbox, area}: the segmentations as `rle.Segmentation` has them, the boxes tight around their masks, [x, y,
width, height] in pixels, the area that of the amodal mask. Boxes that a file gives are not used: two tools that
disagree on them would train two models. Visible pixels outside the amodal mask are kept as they were annotated.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from plug.structures import AmodalAnnotation, AmodalRecord
from sam_common.contracts import ImageRecord
from sam_common.data.coco_json import Known, Mask, read_mask, require_files
from sam_common.data.remarks import Remarks
from sam_common.errors import UserError
from sam_common.masks.rle import decode_segmentation, difference

logger = logging.getLogger(__name__)

XYWH = 1  # Detectron2's BoxMode.XYWH_ABS

EMPTY_AMODAL = "an empty amodal mask"
EMPTY_VISIBLE = "an empty visible mask"
CROWD = "a crowd instead of an object"
HIDDEN_WITHOUT_MASK = "an occlusion rate but no mask of what is seen or hidden"
OTHER_RATE = "an occlusion rate that contradicts the masks"

HIDDEN_KEYS = ("invisible_mask", "occluded_mask")
RATE_KEYS = ("occlude_rate", "occluded_rate", "occlusion_rate")
"""The names that tools have for the mask of the hidden part, and for its share of the whole, 0 to 1."""
_RATE_SLACK = 0.1


class AmodalAnnotations:
    """Fills records with annotations, and keeps count of those that nothing can be learned from.

    Args:
        source: the file they are from, for messages.
        images: the images by their id, of which the records are made.
    """

    def __init__(self, source: str, images: Mapping[int | str, ImageRecord]) -> None:
        self.source, self.remarks = source, Remarks(source)
        self.records: dict[int | str, AmodalRecord] = {
            key: {**image, "annotations": []} for key, image in images.items()
        }

    def add(self, record: AmodalRecord, known: Known, entry: dict, masks: tuple[Mask, Mask], place: int | str) -> None:
        """Adds one object to its record.

        Args:
            known: its id and its category_id, an index.
            entry: what the file says of it.
            masks: amodal and visible, of `read_masks`.
            place: what finds it in the file.
        """
        amodal, visible = masks
        if contradicts_rate(entry, amodal, visible):
            self.remarks.add(f"{OTHER_RATE}, ignored", place)
        record["annotations"].append(
            {
                **known,
                "iscrowd": 0,
                "bbox": amodal.box,
                "bbox_mode": XYWH,
                "segmentation": amodal.segmentation,
                "area": amodal.area,
                "visible_segmentation": visible.segmentation,
                "visible_bbox": visible.box,
            }
        )

    def leave_out(self, reason: str, place: int | str) -> None:
        """Counts an annotation that is not used, by its id or what else finds it in the file."""
        self.remarks.add(f"{reason}, left out", place)

    def finish(self, name: str) -> list[AmodalRecord]:
        """The records of data set `name`; warnings count what was left out.

        Raises:
            UserError: an image is missing, or no object is left.
        """
        require_files(name, "images", [record["file_name"] for record in self.records.values()])
        self.remarks.require_some(any(record["annotations"] for record in self.records.values()))
        self.remarks.warn()
        return list(self.records.values())


def read_masks(
    entry: dict[str, Any], amodal_key: str, visible_key: str, record: ImageRecord, where: str, *, always: bool
) -> tuple[Mask, Mask] | str:
    """The amodal and the visible mask of an entry, or why it cannot be used.

    Where the visible mask is missing it is the whole less the hidden part. Where that is missing too the object is seen
    whole, unless an occlusion rate says otherwise.

    Args:
        always: the format has a visible mask for every object.

    Raises:
        UserError: a mask is damaged or of another size than the image, or the visible one is missing though `always`.
    """

    def read(key: str) -> Mask | None:
        return read_mask(entry.get(key), record, f"{where}, {key}")

    rates, amodal = _rates(entry, where), read(amodal_key)
    if amodal is None:
        return EMPTY_AMODAL
    if entry.get(visible_key) is not None:
        visible = read(visible_key)
    elif hidden := next(filter(None, map(read, HIDDEN_KEYS)), None):
        size = record["height"], record["width"]
        seen = difference(amodal.segmentation, hidden.segmentation, *size, where)
        visible = read_mask(seen, record, where)
    elif any(rates):
        return HIDDEN_WITHOUT_MASK
    elif always and all(entry.get(key) is None for key in HIDDEN_KEYS):
        raise UserError(
            f"{where} has no {visible_key}, the mask of what is seen of it; "
            f"where nothing hides the object, repeat its {amodal_key}"
        )
    else:
        visible = amodal
    return (amodal, visible) if visible else EMPTY_VISIBLE


def contradicts_rate(entry: dict[str, Any], amodal: Mask, visible: Mask) -> bool:
    """Whether an entry of `read_masks` says of its object that another share is hidden than the masks do."""
    hidden = 1 - visible.area / amodal.area
    return any(abs(rate - hidden) > _RATE_SLACK for rate in _rates(entry, ""))


def _rates(entry: dict[str, Any], where: str) -> list[float]:
    given = {key: entry[key] for key in RATE_KEYS if entry.get(key) is not None}
    try:
        return [float(rate) for rate in given.values()]
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: {given} is no share from 0 to 1") from None


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
