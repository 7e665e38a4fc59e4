"""Which of the boxes found in an image prompt a model: a policy apart from the detector.

    top1    the box of the highest score
    union   the box around all
    all     every box
    none    no box at all: the model gets by without

Where none is left, the whole image is the box, and the caller is told.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from sam_common.boxes.boxes import Boxes

POLICIES = ("top1", "union", "all", "none")


def select_boxes(
    found: Boxes, policy: str, image_size: tuple[int, int], *, classes: Collection[str] = ()
) -> tuple[Tensor, bool]:
    """The boxes [n, 4] XYXY in pixels that prompt the model, n at least 1 unless the policy is none; and whether the
    detector found any of them.

    Args:
        found: what a detector gave; boxes without classes are of every class.
        policy: one of `POLICIES`.
        image_size: (height, width).
        classes: names of classes that may prompt; empty: all.
    """
    if policy == "none":
        return torch.zeros(0, 4), True  # nothing was looked for, so nothing was missed
    boxes, scores = found.boxes, found.scores
    if classes and found.categories is not None:
        allowed = torch.tensor([name in classes for name in found.categories], dtype=torch.bool)
        boxes, scores = boxes[allowed], scores[allowed]
    if not len(boxes):
        return torch.tensor([[0.0, 0.0, image_size[1], image_size[0]]]), False
    if policy == "top1":
        return boxes[scores.argmax()][None], True
    if policy == "union":
        return torch.cat((boxes[:, :2].amin(0), boxes[:, 2:].amax(0)))[None], True
    return boxes, True
