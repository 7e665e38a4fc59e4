"""Boxes that prompt a model: checked, moved at random, and matched with what is there.

Boxes are XYXY in pixels, continuous coordinates. Symbols: N boxes, M objects.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from sam_common.errors import UserError

_FARTHEST = 1e9
"""How large a number of a box in a file may be, in pixels."""


@dataclass
class Boxes:
    """Boxes of one image, from a detector or a file.

    Attributes:
        boxes: [N, 4] float32 XYXY in pixels.
        scores: [N] float32 in [0, 1]; 1 where nothing gave one.
        categories: N names of classes (their ids as texts where no names are known), or None.
        masks: N segmentations as COCO's files hold them, of the size of the image, or None.
    """

    boxes: Tensor
    scores: Tensor
    categories: list[str] | None = None
    masks: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def pick(self, indices: Sequence[int]) -> Boxes:
        """Those that a list of indices names, in its order."""
        chosen = torch.tensor(list(indices), dtype=torch.int64)
        lists = [some and [some[index] for index in indices] for some in (self.categories, self.masks)]
        return Boxes(self.boxes[chosen], self.scores[chosen], *lists)

    def confident(self, threshold: float) -> Boxes:
        """Those that score at least `threshold`; NaN does not."""
        return self.pick([index for index, score in enumerate(self.scores.tolist()) if score >= threshold])


GivenBoxes = Boxes | Tensor | np.ndarray | Sequence[Sequence[float]]
"""Boxes [N, 4] XYXY in pixels as users give them."""

BoxSource = Callable[[Any, Tensor], Boxes]
"""(record of a data set, image uint8 RGB [3, H, W]) -> boxes in its pixels."""


def no_boxes() -> Boxes:
    """None at all."""
    return Boxes(torch.zeros(0, 4), torch.zeros(0))


def box_fault(box: Sequence[float], image_size: tuple[int, int] | None = None) -> str:
    """What makes a box (x0, y0, x1, y1) unusable, to be read after "the box"; "" where nothing does.

    Args:
        image_size: (height, width) of the image that the box must meet, where it is known.
    """
    x0, y0, x1, y1 = box
    if not all(math.isfinite(value) for value in box):
        return "has a coordinate that is no number"
    if x1 < x0 or y1 < y0:
        return "has x1 < x0 or y1 < y0; corners come as x0, y0, x1, y1"
    if x1 == x0 or y1 == y0:
        return "has no area"
    if image_size is not None and (x1 <= 0 or y1 <= 0 or x0 >= image_size[1] or y0 >= image_size[0]):
        return f"lies outside the image of {image_size[1]} × {image_size[0]} pixels"
    return ""


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Boxes [N, 4], of each the part inside an image of (height, width)."""
    limits = boxes.new_tensor([image_size[1], image_size[0]] * 2)
    return boxes.clamp(min=0).minimum(limits)


def checked_boxes(
    boxes: Tensor | np.ndarray | Sequence[Sequence[float]], image_size: tuple[int, int], where: str = ""
) -> Tensor:
    """Boxes XYXY in pixels as [N, 4] float32 on the CPU, of each the part inside an image of (height, width).

    Raises:
        UserError: they are no such boxes, or one has no area inside the image; it begins with `where`.
    """
    try:
        corners = torch.as_tensor(boxes, dtype=torch.float32).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where}boxes are rows of four numbers x0, y0, x1, y1: {reason}") from error
    if not corners.numel():
        return corners.reshape(0, 4)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise UserError(f"{where}boxes are [N, 4], rows of x0, y0, x1, y1; these are {list(corners.shape)}")
    for index, box in enumerate(corners.tolist()):
        if fault := box_fault(box, image_size):
            raise UserError(f"{where}box {index}, {','.join(f'{value:g}' for value in box)}, {fault}")
    return clip_boxes(corners, image_size)


def keep_usable(found: Boxes, image_size: tuple[int, int]) -> tuple[Boxes, Counter[str]]:
    """The boxes that show something of an image, clipped to it, and how many others have which fault."""
    faults = [box_fault(box, image_size) for box in found.boxes.tolist()]
    kept = found.pick([index for index, fault in enumerate(faults) if not fault])
    kept.boxes = clip_boxes(kept.boxes, image_size)
    return kept, Counter(fault for fault in faults if fault)


def tight_boxes(masks: Tensor) -> Tensor:
    """[N, 4] float32 XYXY pixels around masks [N, H, W] of bool, or of 0 and 1; column 0 alone spans x 0 to 1, an empty
    mask has zeros."""
    x_start, x_stop = _extent(masks.any(dim=1))
    y_start, y_stop = _extent(masks.any(dim=2))
    return torch.stack([x_start, y_start, x_stop, y_stop], dim=1).float()


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First index and one past the last of the true entries of [N, S] bool; 0 and 0 where there are none."""
    positions = torch.arange(occupied.shape[1], device=occupied.device)
    stop = ((positions + 1) * occupied).amax(dim=1)
    return occupied.int().argmax(dim=1), stop


def xywh(box: Sequence[float]) -> list[float]:
    """A box x0, y0, x1, y1 as COCO's files have it: x, y, width, height."""
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def is_xywh(value: Any) -> bool:
    """Whether a value of a file is a box [x, y, width, height] of numbers, with an area."""
    numbers = isinstance(value, list) and all(type(side) in (int, float) and abs(side) <= _FARTHEST for side in value)
    return numbers and len(value) == 4 and min(value[2:]) > 0


def is_near(box: Sequence[float], true: Sequence[float]) -> bool:
    """Whether no edge of a box is off those of the true one by more than 2 pixels or 5 % of its side; both XYWH.

    Tools count from the corners or the centres of pixels, and round.
    """
    (x, y, width, height), (left, top, wide, high) = box, true
    across = max(abs(x - left), abs(x + width - left - wide))
    down = max(abs(y - top), abs(y + height - top - high))
    return across <= max(2.0, 0.05 * wide) and down <= max(2.0, 0.05 * high)


def jitter_boxes(boxes: Tensor, amount: float, generator: Generator, image_size: tuple[int, int]) -> Tensor:
    """Boxes [N, 4] whose every edge moved by up to `amount` of the box's own width or height, kept inside the image.

    Each edge moves uniformly and for itself. A box keeps at least a pixel in each direction.

    Args:
        amount: 0 leaves the boxes as they are; less than 0.5.
        image_size: (height, width).
    """
    if not amount:
        return boxes
    height, width = image_size
    limits = boxes.new_tensor([width, height, width, height])
    extent = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moves = (2 * torch.rand(boxes.shape, generator=generator) - 1).to(boxes)
    low, high = (boxes + amount * extent * moves).clamp(min=0).minimum(limits).split(2, dim=1)
    low = torch.minimum(low, limits[:2] - 1)
    return torch.cat((low, torch.maximum(high, low + 1)), dim=1)
