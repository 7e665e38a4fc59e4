"""Between Detectron2's structures and ours."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from torch import Tensor

from plug.structures import AmodalInstances, put_back
from sam_common import structures
from sam_common.boxes.boxes import checked_boxes
from sam_common.errors import UserError
from sam_common.structures import Segments

IGNORE_LABEL = 255

_BOXES = ("pred_boxes", "proposal_boxes", "gt_boxes")
"""Where the boxes of Detectron2's `Instances` are, in the order in which they are looked for."""


def boxes_of(entry: dict[str, Any]) -> tuple[Tensor | None, Instances | None]:
    """The boxes of an input [n, 4], XYXY in pixels of its image: `boxes`, those of `instances` or of `proposals`.

    With them come the `Instances` that they are of, if any. Both are None where there are none.

    Raises:
        UserError: they are no [n, 4], or one has no area inside the image.
    """
    boxes, found = entry.get("boxes", ()), None
    if "boxes" not in entry:
        known = [entry[key] for key in ("instances", "proposals") if key in entry]
        found, field = next(((each, name) for each in known for name in _BOXES if each.has(name)), (None, ""))
        if found is None:
            return None, None
        boxes = found.get(field)
    where = entry.get("file_name", "")
    corners = boxes.tensor if isinstance(boxes, Boxes) else boxes
    return checked_boxes(corners, tuple(entry["image"].shape[-2:]), f"{where}: " if where else ""), found


def to_instances(instances: structures.Instances) -> Instances:
    """Our instances as Detectron2's: pred_boxes, scores, pred_classes, pred_masks [N, H, W] bool."""
    return Instances(
        instances.image_size,
        pred_boxes=Boxes(instances.pred_boxes.float()),
        scores=instances.scores,
        pred_classes=instances.pred_classes,
        pred_masks=instances.pred_masks,
    )


def to_amodal_instances(amodal: AmodalInstances, classes: Tensor | None = None) -> Instances:
    """Whole objects as Detectron2's `Instances`, which its `Visualizer` draws.

    Fields: `pred_boxes`, the boxes that were asked about; `pred_masks` [N, H, W] bool, the whole objects;
    `pred_visible_masks` likewise, where the model makes them; `scores`; `pred_classes`, zeros without `classes` [N].
    """
    device, count = amodal.scores.device, len(amodal)
    found = Instances(
        amodal.image_size,
        pred_boxes=Boxes(amodal.pred_boxes.float().to(device)),
        scores=amodal.scores,
        pred_classes=torch.zeros(count, dtype=torch.int64) if classes is None else classes,
        pred_masks=_stack([amodal.amodal_mask(i) for i in range(count)], amodal.image_size, device),
    )
    if amodal.pred_visible_masks is not None:
        visible = [
            put_back(m, w, amodal.image_size) for m, w in zip(amodal.pred_visible_masks, amodal.windows, strict=True)
        ]
        found.pred_visible_masks = _stack(visible, amodal.image_size, device)
    return found


def _stack(masks: list[Tensor], size: tuple[int, int], device: torch.device) -> Tensor:
    return torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool, device=device)


def to_segments(entry: dict[str, Any]) -> Segments:
    """The ground truth of a training input in any of the forms that Detectron2's mappers give.

    The first of these that is there counts: `segments` is ours; `instances` has `gt_classes` and `gt_masks` (tensor,
    bit masks or polygons), one entry for each thing and stuff segment; `sem_seg` is a map of classes [h, w], 255 to
    ignore, of which each class makes one segment.

    Raises:
        UserError: there is none of them, instances have no masks, or the panoptic truth was not read: Detectron2's own
            `DatasetMapper` passes its file's name on.
    """
    if "segments" in entry:
        return entry["segments"]
    height, width = entry["image"].shape[-2:]
    name = entry.get("file_name") or "a training image"
    if "pan_seg_file_name" in entry:
        raise UserError(
            f"{name}: its panoptic segments were not read; use mapper=detectron2_sam.SegmentationMapper(cfg, True)"
        )
    if "instances" in entry:
        instances = entry["instances"]
        if instances.has("gt_masks"):
            return Segments(instances.gt_classes.long(), _mask_tensor(instances.gt_masks, height, width))
        if instances.get_fields() and len(instances):
            raise UserError(f"{name}: its instances have no gt_masks; with Detectron2's mapper set MODEL.MASK_ON True")
        return Segments(torch.empty(0, dtype=torch.int64), torch.empty(0, height, width, dtype=torch.bool))
    if "sem_seg" in entry:
        labels = entry["sem_seg"]
        classes = labels.unique()
        classes = classes[classes != IGNORE_LABEL].long()
        return Segments(classes, labels == classes[:, None, None])
    raise UserError(f"{name} has no ground truth: give segments, instances or sem_seg")


def _mask_tensor(masks: Tensor | BitMasks | PolygonMasks, height: int, width: int) -> Tensor:
    """[N, height, width] bool."""
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks.polygons, height, width)
    return (masks.tensor if isinstance(masks, BitMasks) else masks).bool()
