"""What goes into and comes out of the models, as plain dataclasses.

Symbols: N segments or instances, H and W the height and width in pixels of the image they belong to.
Boxes are XYXY in pixels, continuous coordinates (a mask that covers pixel column 0 alone spans x from 0 to 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Category:
    """One class of a vocabulary.

    Attributes:
        name: what is drawn and printed; the first synonym unless a file says otherwise.
        synonyms: words that mean the class, at least one; a class scores the best of its synonyms.
        is_thing: countable objects (True) or amorphous stuff (False).
        id: the id of the class in its data set's own files, or its index where there is no file.
    """

    name: str
    synonyms: tuple[str, ...]
    is_thing: bool = True
    id: int = 0


Vocabulary = tuple[Category, ...]


@dataclass
class Segments:
    """Ground truth of one image: every thing instance and every stuff region.

    Attributes:
        gt_classes: [N] int64, contiguous class indices of the vocabulary.
        gt_masks: [N, H, W] bool, at the size of the training image before padding.
    """

    gt_classes: Tensor
    gt_masks: Tensor

    def __len__(self) -> int:
        return len(self.gt_classes)

    def to(self, device: torch.device | str) -> Segments:
        return Segments(self.gt_classes.to(device), self.gt_masks.to(device))


@dataclass
class Instances:
    """Predicted instances of one image, best first.

    Attributes:
        image_size: (height, width) of the original image.
        pred_masks: [N, H, W] bool.
        scores: [N] in [0, 1].
        pred_classes: [N] int64, contiguous class indices.
        pred_boxes: [N, 4] XYXY pixels, the tight box of each mask; zeros for an empty mask.
    """

    image_size: tuple[int, int]
    pred_masks: Tensor
    scores: Tensor
    pred_classes: Tensor
    pred_boxes: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Tensor) -> Instances:
        """Those that a bool [N] or a list of indices names."""
        picked = (t[chosen] for t in (self.pred_masks, self.scores, self.pred_classes, self.pred_boxes))
        return Instances(self.image_size, *picked)

    def to(self, device: torch.device | str) -> Instances:
        moved = (t.to(device) for t in (self.pred_masks, self.scores, self.pred_classes, self.pred_boxes))
        return Instances(self.image_size, *moved)


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
