"""Boxes that prompt a model: moved at random, and matched with what is there.

Boxes are XYXY in pixels, continuous coordinates. Symbols: N boxes, M objects.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torchvision.ops import box_iou


def mask_box(mask: Tensor) -> Tensor:
    """The tight box of a mask [H, W] bool: [4] float32; zeros where it is empty."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    if not len(rows):
        return torch.zeros(4, device=mask.device)
    return torch.stack((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)).float()


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


def match_boxes(boxes: Tensor, scores: Tensor, objects: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Which object each box is of: [N] int64 indices of objects, -1 for none.

    See `match_greedily`; the overlap is the IoU of the boxes.
    """
    return match_greedily(box_iou(boxes, objects), scores, threshold=threshold)


def match_greedily(overlap: Tensor, scores: Tensor, *, threshold: float = 0.5) -> Tensor:
    """From the best score down, each takes the object that it overlaps most among those still free.

    Args:
        overlap: [N, M] IoU in [0, 1].
        scores: [N].
        threshold: of the IoU, from which they are the same object.

    Returns:
        [N] int64, the object of each, -1 for none; every object at most once.
    """
    matches = torch.full((len(scores),), -1, dtype=torch.int64)
    if not overlap.numel():
        return matches
    free = overlap.clone()
    for index in scores.argsort(descending=True, stable=True).tolist():
        best, place = free[index].max(0)
        if best >= threshold:
            matches[index] = place
            free[:, place] = -1
    return matches
