"""Whole objects, as PLUG makes them. Boxes are XYXY in pixels, as in `sam_common.structures`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
