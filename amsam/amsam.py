"""AM-SAM: a few labelled images make a segmenter for their classes (Figure 2 of the paper).

    image -> SAM's encoder (frozen) ──────────────┐
    box of a detector -> SAM's box tokens (frozen)┼-> decoder with LoRA, K+1 masks -> calibration -> softmax
    A, the learnable dense prompt ────────────────┘

The encoders never change and nothing is augmented, so an image and its box are encoded once for all epochs.

Shapes: B images, K classes beside the background, L the side of the input, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from amsam.criterion import few_shot_losses
from amsam.embedding_cache import EmbeddingCache, content_key
from amsam.structures import FewShotInput, FewShotOutput
from sam_common.contracts import Losses
from sam_common.layers.pixels import PixelNormalization
from sam_common.sam.image_encoder import ImageEncoder
from sam_common.sam.paired_decoder import PairedDecoder
from sam_common.sam.prompt_encoder import PromptEncoder
from sam_common.structures import Vocabulary


class Encoded(NamedTuple):
    """What is frozen of an image: its embedding [C, L / 16, L / 16], and the tokens [2·n, C] of its n boxes."""

    embedding: Tensor
    box_tokens: Tensor


class AMSAM(nn.Module):
    """Images and a box each in, one of K+1 classes for each pixel out.

    `forward(batch)` takes a list of dictionaries, one for each image:
        image: [3, h, w] uint8 RGB, at its own size.
        boxes: [n, 4] XYXY in pixels of the image; n = 0: no box prompts.
        content: a name of the image's content (`content_key`); made here where it is missing.
        labels: [h, w] int64, 0 the background, 1 … K, -1 where nothing is said (training).

    In training it returns a dictionary of weighted scalar losses; else a list of dictionaries with
        few_shot: [K+1, h, w] probabilities.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        prompt_encoder: PromptEncoder,
        *,
        decoder: PairedDecoder,
        calibration: nn.Module,
        cache: EmbeddingCache,
        image_size: int,
        pixels: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        """Args: the parts of the figure; what remembers embeddings; L; mean and std of pixels (0..255, RGB)."""
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.prompt_encoder = prompt_encoder.requires_grad_(False)
        self.prompt_encoder.no_mask_embed.requires_grad_(True)
        self.decoder = decoder
        self.calibration = calibration
        self.cache = cache
        self.image_size = image_size
        self.outputs = {"few_shot"}
        self.training_vocabulary: Vocabulary = ()  # a class is what the masks show, whatever it is called
        self.normalize = PixelNormalization(*pixels)

    @property
    def device(self) -> torch.device:
        return self.normalize.device

    def forward(self, batch: list[FewShotInput]) -> Losses | list[FewShotOutput]:
        logits = self.segment([self.encode(entry) for entry in batch])
        if self.training:
            labels = torch.stack([self.resized_labels(entry["labels"]) for entry in batch])
            return few_shot_losses(logits, labels)
        sizes = [(entry["image"].shape[1], entry["image"].shape[2]) for entry in batch]
        return [{"few_shot": _resized(one[None], size)[0].softmax(0)} for one, size in zip(logits, sizes, strict=True)]

    @torch.no_grad()
    def encode(self, entry: FewShotInput) -> Encoded:
        """The frozen part of an entry of a batch, in float32: what is kept serves at any precision."""
        image, boxes, device = entry["image"], entry["boxes"], self.device
        key = entry.get("content") or content_key(image)
        of_box = f"{key}-{content_key(boxes)}"
        with torch.autocast(device.type, enabled=False):
            embedding = self.cache(key, lambda: self.embed(image), device)
            return Encoded(embedding, self.cache(of_box, lambda: self.box_tokens(boxes, image.shape), device))

    def embed(self, image: Tensor) -> Tensor:
        """The embedding [C, L / 16, L / 16] of an image [3, h, w] uint8."""
        resized = transforms.resize(image.to(self.device), [self.image_size, self.image_size], antialias=True)
        return self.encoder(self.normalize(resized)[None])[0]

    def box_tokens(self, boxes: Tensor, image_shape: Sequence[int]) -> Tensor:
        """SAM's tokens [2·n, C] of boxes [n, 4] in an image [3, h, w]."""
        scale = self.image_size / boxes.new_tensor([image_shape[2], image_shape[1]] * 2)
        prompts = self.prompt_encoder.at(self.image_size, self.image_size)
        tokens, _ = prompts(points=None, boxes=(boxes * scale).to(self.device), masks=None)
        return tokens.flatten(0, 1)

    def segment(self, encoded: Sequence[Encoded]) -> Tensor:
        """Logits [B, K+1, L, L] of what `encode` made of B images."""
        if len({len(one.box_tokens) for one in encoded}) > 1:  # as many prompts as boxes: no common batch
            return torch.cat([self.segment([one]) for one in encoded])
        prompts = self.prompt_encoder.at(self.image_size, self.image_size)
        embeddings = torch.stack([one.embedding for one in encoded])
        tokens = torch.stack([one.box_tokens for one in encoded])
        dense = prompts.no_mask_embed.weight.view(1, -1, 1, 1).expand_as(embeddings)
        features, weights = self.decoder.decode(embeddings, prompts.get_dense_pe(), tokens, dense)
        return _resized(self.calibration(features, weights), (self.image_size, self.image_size))

    def resized_labels(self, labels: Tensor) -> Tensor:
        """[h, w] -> [L, L], nearest."""
        size = (self.image_size, self.image_size)
        return F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long().to(self.device)

    def levels(self) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
        """What trains, by level: W, everything but A; and A."""
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        upper = {name: p for name, p in trained.items() if p is self.prompt_encoder.no_mask_embed.weight}
        return {name: p for name, p in trained.items() if name not in upper}, upper

    def loss(self, lower: Mapping[str, Tensor], upper: Mapping[str, Tensor], batch: list[FewShotInput]) -> Tensor:
        """The training loss as a function of its parameters, for `bilevel.py`."""
        losses: dict[str, Tensor] = functional_call(self, {**lower, **upper}, (batch,))
        return torch.stack(list(losses.values())).sum()


def _resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear")
