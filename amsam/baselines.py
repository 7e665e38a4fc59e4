"""What AM-SAM is compared with: SAM as it is, told the box, and the box itself. Neither is trained.

Both know one class. With `--eval-only MODEL.META_ARCHITECTURE PromptedSAM` (or BoxRectangle) they take the place of the
model, under the same configuration and the same boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amsam.structures import FewShotInput, FewShotOutput
from sam_common.sam.box_prompt import BoxPromptedSam
from sam_common.structures import Vocabulary


class PromptedSAM(BoxPromptedSam):
    """The union of SAM's masks of the boxes.

    `forward(batch)` takes and gives what AMSAM does in evaluation; probabilities [2, h, w] are 0 and 1.
    """

    outputs = frozenset({"few_shot"})

    def forward(self, batch: list[FewShotInput]) -> list[FewShotOutput]:
        return [{"few_shot": _probabilities(self.segment(entry))} for entry in batch]

    def segment(self, entry: FewShotInput) -> Tensor:
        """The object [h, w] bool of one image."""
        boxes = entry["boxes"].to(self.normalize.device)
        masks, _ = self.masks(entry["image"], boxes)
        return torch.stack(masks).any(0)


class BoxRectangle(nn.Module):
    """The pixels whose centres lie in a box: what a model must beat to have looked at the image.

    `forward(batch)` takes and gives what AMSAM does in evaluation; probabilities [2, h, w] are 0 and 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"few_shot"}
        self.training_vocabulary: Vocabulary = ()

    def forward(self, batch: list[FewShotInput]) -> list[FewShotOutput]:
        return [{"few_shot": _probabilities(_inside(entry["boxes"], entry["image"].shape[1:]))} for entry in batch]


def _inside(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Whether the centre of each pixel [h, w] lies in one of the boxes [n, 4]."""
    rows, columns = (torch.arange(side, device=boxes.device) + 0.5 for side in size)
    x0, y0, x1, y1 = boxes.T[..., None]
    within_rows, within_columns = (y0 <= rows) & (rows <= y1), (x0 <= columns) & (columns <= x1)
    return (within_rows[:, :, None] & within_columns[:, None, :]).any(0)


def _probabilities(mask: Tensor) -> Tensor:
    return torch.stack((~mask, mask)).float()
