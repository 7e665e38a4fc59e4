"""Row 1 of PLUG's Table 2: SAM as it is, asked for the whole object by its amodal box. Nothing is trained.

The image is looked at as a whole, as SAM was trained. The amodal box is the truth's, which no other row is given.
"""

from __future__ import annotations

import torch

from plug.structures import AmodalInput, AmodalInstances, AmodalOutput
from sam_common.sam.box_prompt import BoxPromptedSam


class VanillaSAM(BoxPromptedSam):
    """An image and amodal boxes in, masks out.

    `forward(batch)` takes a list of dictionaries, one for each image:
        image: [3, H, W] uint8 RGB, at its own size.
        boxes: [n, 4] XYXY in pixels, of the visible parts; returned with the masks, not looked at.
        amodal_boxes: [n, 4] of the whole objects; zeros where unknown, which gives an empty mask.

    It returns a list of dictionaries with
        amodal: `AmodalInstances`, in the order of the boxes, without visible masks.
    """

    outputs = frozenset({"amodal"})

    def forward(self, batch: list[AmodalInput]) -> list[AmodalOutput]:
        return [{"amodal": self.segment(entry)} for entry in batch]

    def segment(self, entry: AmodalInput) -> AmodalInstances:
        """The objects of one image."""
        boxes = entry["amodal_boxes"].to(self.normalize.device, torch.float32)
        original = (entry["image"].shape[1], entry["image"].shape[2])
        known = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        masks = [torch.zeros(original, dtype=torch.bool, device=boxes.device) for _ in boxes]
        scores = torch.zeros(len(boxes), device=boxes.device)
        if known.any():
            found, quality = self.masks(entry["image"], boxes[known])
            scores[known] = quality.clamp(0, 1)
            for index, mask in zip(known.nonzero().flatten().tolist(), found, strict=True):
                masks[index] = mask
        windows = [(0, 0, original[1], original[0])] * len(boxes)
        return AmodalInstances(original, entry["boxes"], scores, windows, masks, None)
