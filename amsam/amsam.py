"""AM-SAM: a few labelled images make a segmenter for their classes (Figure 2 of the paper).

    image -> SAM's encoder (frozen) ──────────────┐
    box of a detector -> SAM's box tokens (frozen)┼-> decoder with LoRA, K+1 masks -> calibration -> softmax
    A, the learnable dense prompt ────────────────┘

The encoder and the box tokens never change, so whoever trains for many epochs computes them once (`encode`).

Shapes: B images, K classes beside the background, L the side of the input, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from amsam.criterion import few_shot_losses
from sam_common.sam.image_encoder import ImageEncoder
from sam_common.sam.paired_decoder import PairedDecoder
from sam_common.sam.prompt_encoder import PromptEncoder


class Encoded(NamedTuple):
    """What is frozen of an image: its embedding [C, L / 16, L / 16], and the tokens [2, C] of its box."""

    embedding: Tensor
    box_tokens: Tensor


class AMSAM(nn.Module):
    """Images and a box each in, one of K+1 classes for each pixel out.

    `forward(batch)` takes a list of dictionaries, one for each image:
        image: [3, h, w] uint8 RGB, at its own size; or `encoded`, what `encode` made of it and its box.
        box: [4] XYXY in pixels of the image.
        labels: [h, w] int64, 0 the background, 1 … K (training).
        height, width: of the answer; by default those of the image.

    In training it returns a dictionary of weighted scalar losses; else a list of dictionaries with
        sem_seg: [K+1, height, width] probabilities.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: ImageEncoder,
        prompt_encoder: PromptEncoder,
        *,
        decoder: PairedDecoder,
        calibration: nn.Module,
        image_size: int,
        pixels: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        """Args: the parts of the figure; L; mean and std of pixels (0..255, RGB)."""
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.prompt_encoder = prompt_encoder.requires_grad_(False)
        self.prompt_encoder.no_mask_embed.requires_grad_(True)
        self.decoder = decoder
        self.calibration = calibration
        self.image_size = image_size
        for name, values in zip(("mean", "std"), pixels, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        logits = self.segment([entry.get("encoded") or self.encode(entry["image"], entry["box"]) for entry in batch])
        if self.training:
            labels = torch.stack([self.resized_labels(entry["labels"]) for entry in batch])
            return few_shot_losses(logits, labels)
        return [{"sem_seg": _resized(logits[i : i + 1], _size(entry))[0].softmax(0)} for i, entry in enumerate(batch)]

    @torch.no_grad()
    def encode(self, image: Tensor, box: Tensor) -> Encoded:
        """The frozen part of an image [3, h, w] uint8 and its box [4]."""
        size = [self.image_size, self.image_size]
        resized = transforms.resize(image.to(self.mean.device), size, antialias=True)
        normalised = (resized - self.mean) / self.std
        scale = self.image_size / box.new_tensor([image.shape[2], image.shape[1]] * 2)
        prompts = self.prompt_encoder.at(self.image_size, self.image_size)
        tokens, _ = prompts(points=None, boxes=(box * scale)[None].to(self.mean.device), masks=None)
        return Encoded(self.encoder(normalised[None])[0], tokens[0])

    def segment(self, encoded: Sequence[Encoded]) -> Tensor:
        """Logits [B, K+1, L, L] of what `encode` made of B images."""
        prompts = self.prompt_encoder.at(self.image_size, self.image_size)
        embeddings = torch.stack([one.embedding for one in encoded])
        tokens = torch.stack([one.box_tokens for one in encoded])
        dense = prompts.no_mask_embed.weight.view(1, -1, 1, 1).expand_as(embeddings)
        features, weights = self.decoder.decode(embeddings, prompts.get_dense_pe(), tokens, dense)
        return _resized(self.calibration(features, weights), (self.image_size, self.image_size))

    def resized_labels(self, labels: Tensor) -> Tensor:
        """[h, w] -> [L, L], nearest."""
        size = (self.image_size, self.image_size)
        return F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long().to(self.mean.device)

    def levels(self) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
        """What trains, by level: W, everything but A; and A."""
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        upper = {name: p for name, p in trained.items() if p is self.prompt_encoder.no_mask_embed.weight}
        return {name: p for name, p in trained.items() if name not in upper}, upper

    def loss(self, lower: Mapping[str, Tensor], upper: Mapping[str, Tensor], batch: list[dict[str, Any]]) -> Tensor:
        """The training loss as a function of its parameters, for `bilevel.py`."""
        losses: dict[str, Tensor] = functional_call(self, {**lower, **upper}, (batch,))
        return torch.stack(list(losses.values())).sum()


def _resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear")


def _size(entry: dict[str, Any]) -> tuple[int, int]:
    if "height" in entry:
        return entry["height"], entry["width"]
    return entry["image"].shape[1], entry["image"].shape[2]
