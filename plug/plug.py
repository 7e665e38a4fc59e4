"""PLUG: amodal segmentation with Segment Anything, parallel LoRA and uncertainty (Figure 2 of the paper).

    image, visible box -> crop ×2 -> SAM's encoder with two LoRA branches -> D_v -> visible mask ─┐
                                                                          -> D_a -> amodal mask  ─┤
                                            uncertainty of both, the crop ────────────────────────┴-> refine -> amodal

Shapes: B objects of all images of a batch, S branches (visible before amodal), L the side of the crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plug.criterion import BRANCHES, Criterion
from plug.crop import Window, crop, magnified_window, paste, to_crop
from plug.parallel_lora import ParallelEncoder
from plug.uncertainty import uncertainty
from sam_common.sam.prompt_encoder import PromptEncoder


@dataclass(frozen=True)
class Inference:
    """Thresholds, and how many crops go through the model at once.

    Attributes:
        threshold: probability from which a pixel belongs to a mask. [ours] The text says "threshold of logits".
        max_crops: bounds the memory of an image with many objects.
    """

    threshold: float = 0.3
    max_crops: int = 16


class PLUG(nn.Module):
    """An image and boxes of visible parts in, whole objects out; no classes.

    `forward(batch)` takes a list of dictionaries, one for each image:
        image: [3, h, w] uint8 RGB, at its own size.
        boxes: [n, 4] XYXY in pixels, of the visible parts of n objects.
        visible_masks, amodal_masks: [n, h, w] bool; seeds: n keys of the random draws (training).

    In training it returns a dictionary of weighted scalar losses; else a list of dictionaries with
        amodal: `amodal_masks` and, with a visible branch, `visible_masks`, [n, h, w] bool; `scores` [n], the mean
            probability inside the amodal mask; `boxes`, those asked for.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: ParallelEncoder,
        prompt_encoder: PromptEncoder,
        *,
        decoders: Sequence[nn.Module],
        refine: nn.Module,
        criterion: Criterion,
        size: int,
        clip_windows: bool,
        pixels: tuple[Sequence[float], Sequence[float]],
        inference: Inference,
    ) -> None:
        """Args: the parts of the figure, a decoder for each branch; L; mean and std of pixels (0..255, RGB)."""
        super().__init__()
        self.encoder = encoder
        self.prompt_encoder = prompt_encoder
        self.decoders = nn.ModuleList(decoders)
        self.refine = refine
        self.criterion = criterion
        self.size = size
        self.clip_windows = clip_windows
        self.inference = inference
        for name, values in zip(("mean", "std"), pixels, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        if not self.training:
            return [{"amodal": self.complete(entry)} for entry in batch]
        windows = [self.windows(entry) for entry in batch]
        crops = torch.cat([self.crops(entry, w) for entry, w in zip(batch, windows, strict=True)])
        boxes = torch.cat([self.boxes_in_crops(entry, w) for entry, w in zip(batch, windows, strict=True)])
        truth = torch.cat([self.truth(entry, w) for entry, w in zip(batch, windows, strict=True)])
        mask_logits, doubt, refined = self.segment(crops, boxes)
        return self.criterion(mask_logits, doubt, refined, truth, [seed for entry in batch for seed in entry["seeds"]])

    def segment(self, crops: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Crops [B, 3, L, L], normalised, and boxes [B, 4] in their pixels -> logits and uncertainty [B, S, L, L], and
        the refined logits of the amodal mask [B, 1, L, L]."""
        prompts = self.prompt_encoder.at(self.size, self.size)
        sparse, dense = prompts(points=None, boxes=boxes, masks=None)
        positions = prompts.get_dense_pe()
        embeddings = self.encoder(crops)  # [S, B, C, L / 16, L / 16]
        low = [
            decoder(of_branch, positions, sparse, dense)
            for decoder, of_branch in zip(self.decoders, embeddings, strict=True)
        ]
        mask_logits = F.interpolate(torch.cat(low, dim=1), (self.size, self.size), mode="bilinear")
        doubt = torch.cat([uncertainty(mask_logits[:, i : i + 1]) for i in range(len(low))], dim=1)
        return mask_logits, doubt, self.refine(crops, mask_logits, doubt)

    def complete(self, entry: dict[str, Any]) -> dict[str, Tensor]:
        """The whole objects of one image, a few crops at a time."""
        boxes, size = entry["boxes"], tuple(entry["image"].shape[1:])
        masks = torch.zeros(len(self.decoders), len(boxes), *size, dtype=torch.bool, device=self.mean.device)
        scores = torch.zeros(len(boxes), device=self.mean.device)
        for start in range(0, len(boxes), self.inference.max_crops):
            some = {"image": entry["image"], "boxes": boxes[start : start + self.inference.max_crops]}
            windows = self.windows(some)
            mask_logits, _, refined = self.segment(self.crops(some, windows), self.boxes_in_crops(some, windows))
            answers = torch.cat((mask_logits[:, :-1], refined), dim=1).float()  # the amodal mask is the refined one
            for index, window in enumerate(windows, start):
                probabilities = torch.stack([paste(x, window, size).sigmoid() for x in answers[index - start]])
                masks[:, index] = probabilities > self.inference.threshold
                inside = probabilities[-1][masks[-1, index]]
                scores[index] = inside.sum() / max(len(inside), 1)
        names = [f"{branch}_masks" for branch in BRANCHES[-len(self.decoders) :]]
        return {"boxes": boxes, **dict(zip(names, masks, strict=True)), "scores": scores}

    def windows(self, entry: dict[str, Any]) -> list[Window]:
        size = (entry["image"].shape[1], entry["image"].shape[2])
        return [magnified_window(box, size, clip=self.clip_windows) for box in entry["boxes"]]

    def crops(self, entry: dict[str, Any], windows: list[Window]) -> Tensor:
        """[n, 3, L, L], normalised; what lies outside the image is zero after that."""
        image = (entry["image"].to(self.mean.device) - self.mean) / self.std
        return torch.stack([crop(image, window, self.size) for window in windows])

    def boxes_in_crops(self, entry: dict[str, Any], windows: list[Window]) -> Tensor:
        """[n, 4] XYXY in pixels of the crops."""
        boxes = entry["boxes"].to(self.mean.device, torch.float32)
        return torch.stack([to_crop(box, window, self.size) for box, window in zip(boxes, windows, strict=True)])

    def truth(self, entry: dict[str, Any], windows: list[Window]) -> Tensor:
        """[n, 2, L, L] visible and amodal masks of the crops, 0 or 1."""
        masks = torch.stack((entry["visible_masks"], entry["amodal_masks"]), dim=1).to(self.mean.device, torch.float32)
        return (
            torch.stack([crop(pair, window, self.size) for pair, window in zip(masks, windows, strict=True)]) >= 0.5
        ).float()
