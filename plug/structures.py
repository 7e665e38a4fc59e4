"""Whole objects, as PLUG makes them. Boxes are XYXY in pixels, as in `sam_common.structures`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from sam_common.boxes.boxes import tight_boxes, xywh
from sam_common.contracts import Annotation, ModelInput, Record, Segmentation
from sam_common.masks.rle import encode_mask


class AmodalAnnotation(Annotation, total=False):
    """One object: `bbox` and `segmentation` are of the whole, hidden parts included."""

    visible_bbox: Sequence[float]  # XYWH
    visible_segmentation: Segmentation


class AmodalRecord(Record):
    """An image with its objects (`plug.data.annotations`)."""

    annotations: list[AmodalAnnotation]


class AskedObjects(TypedDict, total=False):
    """The n objects that PLUG is asked about in testing, and which of the annotated ones they are."""

    boxes: Tensor  # [n, 4] XYXY, of the visible parts
    amodal_boxes: Tensor  # [n, 4], of the whole objects; zeros where a box is of none
    box_scores: list[float]
    annotation_ids: list[int | str | None]
    category_ids: list[int | None]


class AmodalInput(ModelInput, AskedObjects, total=False):
    """What PLUG is given of an image, which has its own size (`plug.data.mapper`)."""

    visible_masks: Tensor  # [n, H, W] bool, in training, as the others
    amodal_masks: Tensor
    seeds: list[int]  # keys of the losses' draws


class AmodalOutput(TypedDict):
    """What PLUG makes of an image, in the order of the boxes."""

    amodal: AmodalInstances


Window = tuple[int, int, int, int]
"""x0, y0, x1, y1: columns x0 … x1-1 and rows y0 … y1-1; with padding it may reach beyond the image."""


@dataclass
class AmodalInstances:
    """Whole objects of one image, hidden parts included. Masks are kept within windows: many objects fit into memory.

    Attributes:
        image_size: (height, width).
        pred_boxes: [N, 4] XYXY pixels, the boxes of visible parts that were asked about.
        scores: [N] in [0, 1], the mean probability inside the amodal mask.
        windows: N windows; no mask has a pixel outside its own.
        pred_masks: N bool [h, w], the amodal masks within their windows.
        pred_visible_masks: N bool [h, w], the visible ones; None from a model that makes none.
    """

    image_size: tuple[int, int]
    pred_boxes: Tensor
    scores: Tensor
    windows: list[Window]
    pred_masks: list[Tensor]
    pred_visible_masks: list[Tensor] | None

    def __len__(self) -> int:
        return len(self.scores)

    def amodal_mask(self, index: int) -> Tensor:
        """The amodal mask of one object in the frame of the image, bool [H, W]."""
        return put_back(self.pred_masks[index], self.windows[index], self.image_size)

    def visible_mask(self, index: int) -> Tensor | None:
        """Its visible mask likewise, where the model makes one."""
        if self.pred_visible_masks is None:
            return None
        return put_back(self.pred_visible_masks[index], self.windows[index], self.image_size)

    def to(self, device: torch.device | str) -> AmodalInstances:
        visible = None if self.pred_visible_masks is None else [mask.to(device) for mask in self.pred_visible_masks]
        masks = [mask.to(device) for mask in self.pred_masks]
        return AmodalInstances(
            self.image_size, self.pred_boxes.to(device), self.scores.to(device), self.windows, masks, visible
        )


def put_back(values: Tensor, window: Window, image_size: tuple[int, int]) -> Tensor:
    """Values [..., h, w] of a window in the frame of an image [..., H, W], zero elsewhere; what lies beyond is cut."""
    left, top, right, bottom = window
    height, width = image_size
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    placed = values.new_zeros(*values.shape[:-2], *image_size)
    placed[..., y0:y1, x0:x1] = values[..., y0 - top : y1 - top, x0 - left : x1 - left]
    return placed


def coco_result(amodal: Tensor, visible: Tensor | None, category_id: int | None, score: float) -> dict[str, Any]:
    """An object's masks [H, W], on the CPU, as an entry of COCO's results: whole, visible part and hidden part."""
    box = xywh(tight_boxes(amodal[None])[0].tolist())
    entry = {"category_id": category_id, "bbox": box, "score": score, "segmentation": encode_mask(amodal)}
    if visible is not None:
        entry["visible_segmentation"] = encode_mask(visible)
        entry["occluded_segmentation"] = encode_mask(amodal & ~visible)
    return entry
