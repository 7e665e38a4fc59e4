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
