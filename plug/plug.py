"""PLUG: amodal segmentation with Segment Anything, parallel LoRA and uncertainty (Figure 2 of the paper).

    image, visible box -> crop ×2 -> SAM's encoder with two LoRA branches -> D_v -> visible mask ─┐
                                                                          -> D_a -> amodal mask  ─┤
                                            uncertainty of both, the crop ────────────────────────┴-> refine -> amodal

Shapes: B objects of all images of a batch, S branches (visible before amodal), L the side of the crops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plug.criterion import BRANCHES, Criterion
from plug.crop import crop, magnified_window, to_crop, uncrop
from plug.parallel_lora import ParallelEncoder
from plug.structures import AmodalInput, AmodalInstances, AmodalOutput, Window
from plug.uncertainty import uncertainty
from sam_common.contracts import Losses
from sam_common.layers.pixels import PixelNormalization
from sam_common.sam.prompt_encoder import PromptEncoder
from sam_common.structures import Vocabulary


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

    `forward(part, whole=batch)` trains on a part of a batch: the losses of its parts add up to those of the batch.

    In training it returns a dictionary of weighted scalar losses; else a list of dictionaries with
        amodal: `AmodalInstances`, in the order of the boxes.
    """

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
        self.outputs = {"amodal"}
        self.training_vocabulary: Vocabulary = ()  # classes are neither asked for nor learned
        self.normalize = PixelNormalization(*pixels)
        # Processes exchange gradients; they would wait for those of what is never used.
        self._ddp_params_and_buffers_to_ignore = list(self.never_used())

    @property
    def device(self) -> torch.device:
        return self.normalize.device

    def never_used(self) -> Iterator[str]:
        """Parameters that count as trained, as in the paper, but take no part: SAM predicts its masks' quality, and
        reads masks and points."""
        heads = ("iou_prediction_head", "mask_downscaling")
        unused = (*heads, "not_a_point_embed", "point_embeddings.0", "point_embeddings.1")
        for name, _ in self.named_parameters():
            if any(f".{part}." in name for part in unused):
                yield name

    def forward(
        self, batch: list[AmodalInput], whole: Sequence[AmodalInput] | None = None
    ) -> Losses | list[AmodalOutput]:
        if not self.training:
            return [{"amodal": self.complete(entry)} for entry in batch]
        windows = [self.windows(entry) for entry in batch]
        crops = torch.cat([self.crops(entry["image"], w) for entry, w in zip(batch, windows, strict=True)])
        boxes = torch.cat([self.boxes_in_crops(entry["boxes"], w) for entry, w in zip(batch, windows, strict=True)])
        truth = torch.cat([self.truth(entry, w) for entry, w in zip(batch, windows, strict=True)])
        mask_logits, doubt, refined = self.segment(crops, boxes)
        seeds = [seed for entry in batch for seed in entry["seeds"]]
        count = sum(len(entry["boxes"]) for entry in whole or batch)
        return self.criterion(mask_logits, doubt, refined, truth, seeds, batch_count=count)

    def segment(self, crops: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Crops [B, 3, L, L], normalised, and boxes [B, 4] in their pixels -> logits and uncertainty [B, S, L, L], and
        the refined logits of the amodal mask [B, 1, L, L]."""
        prompts = self.prompt_encoder.at(self.size, self.size)
        with torch.autocast(crops.device.type, enabled=False):  # half precision would blur coordinates
            sparse, dense = prompts(points=None, boxes=boxes, masks=None)
            positions = prompts.get_dense_pe()
        embeddings = self.encoder(crops)  # [S, B, C, L / 16, L / 16]
        low = [
            decoder(of_branch, positions, sparse, dense)
            for decoder, of_branch in zip(self.decoders, embeddings, strict=True)
        ]
        mask_logits = F.interpolate(torch.cat(low, dim=1).float(), (self.size, self.size), mode="bilinear")
        doubt = torch.cat([uncertainty(mask_logits[:, i : i + 1]) for i in range(len(low))], dim=1)
        return mask_logits, doubt, self.refine(crops, mask_logits, doubt).float()

    def complete(self, entry: AmodalInput) -> AmodalInstances:
        """The whole objects of one image, a few crops at a time."""
        boxes, size = entry["boxes"], (entry["image"].shape[1], entry["image"].shape[2])
        windows = self.windows(entry)
        masks: list[Tensor] = []  # [S, h, w] of each object
        scores = torch.zeros(len(boxes), device=self.device)
        for start in range(0, len(boxes), self.inference.max_crops):
            some = slice(start, start + self.inference.max_crops)
            crops = self.crops(entry["image"], windows[some])
            mask_logits, _, refined = self.segment(crops, self.boxes_in_crops(boxes[some], windows[some]))
            answers = torch.cat((mask_logits[:, :-1], refined), dim=1)  # the amodal mask is the refined one
            for answer, window in zip(answers, windows[some], strict=True):
                probabilities = uncrop(answer, window).sigmoid()
                mask = probabilities > self.inference.threshold
                inside = probabilities[-1][mask[-1]]
                scores[len(masks)] = inside.sum() / max(len(inside), 1)
                masks.append(mask)
        visible = [mask[0] for mask in masks] if len(self.decoders) == len(BRANCHES) else None
        return AmodalInstances(size, boxes, scores, windows, [mask[-1] for mask in masks], visible)

    def windows(self, entry: AmodalInput) -> list[Window]:
        size = (entry["image"].shape[1], entry["image"].shape[2])
        return [magnified_window(box, size, clip=self.clip_windows) for box in entry["boxes"]]

    def crops(self, image: Tensor, windows: list[Window]) -> Tensor:
        """[n, 3, L, L], normalised; what lies outside the image is zero after that."""
        image = self.normalize(image.to(self.device))
        return torch.stack([crop(image, window, self.size) for window in windows])

    def boxes_in_crops(self, boxes: Tensor, windows: list[Window]) -> Tensor:
        """[n, 4] XYXY in pixels of the crops."""
        boxes = boxes.to(self.device, torch.float32)
        return torch.stack([to_crop(box, window, self.size) for box, window in zip(boxes, windows, strict=True)])

    def truth(self, entry: AmodalInput, windows: list[Window]) -> Tensor:
        """[n, 2, L, L] visible and amodal masks of the crops, 0 or 1."""
        masks = torch.stack((entry["visible_masks"], entry["amodal_masks"]), dim=1).to(self.device, torch.float32)
        return (
            torch.stack([crop(pair, window, self.size) for pair, window in zip(masks, windows, strict=True)]) >= 0.5
        ).float()
