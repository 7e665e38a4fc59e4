"""What the tiny CLIP is taught with: regions of generated scenes, and sentences for every class.

Symbols: B scenes of a step, Q regions of the scene that has most, S the side of a scene, C classes, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from possam.clip_encoder import PIXEL_MEAN, PIXEL_STD, ClipEncoder
from possam.text_embeddings import VILD_TEMPLATES
from sam_common.data.generated.scene import generate_scene
from sam_common.data.generated.vocabulary import world_vocabulary
from sam_common.layers.pixels import PixelNormalization

_MASK_STRIDE = 4  # of PosSAM's mask logits


@dataclass(frozen=True)
class Batch:
    """B scenes with up to Q regions each, things and stuff.

    Attributes:
        images: [B, 3, S, S], normalised.
        masks: [B, Q, S/4, S/4] in -1..1, positive inside the visible mask; -1 in padding.
        classes: [B, Q] int64, -1 in padding.
    """

    images: Tensor
    masks: Tensor
    classes: Tensor


def load_batch(world: int, indices: Sequence[int], *, size: int, flips: np.random.Generator | None = None) -> Batch:
    """The scenes with these indices of a world, each mirrored with probability 1/2 where `flips` is given."""
    scenes = [generate_scene(world, index, size=size) for index in indices]
    regions = [list(scene.segments()) for scene in scenes]
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float()
    side = size // _MASK_STRIDE
    masks = torch.full((len(scenes), max(map(len, regions)), side, side), -1.0)
    classes = torch.full(masks.shape[:2], -1)
    for row, segments in enumerate(regions):
        for column, (category, mask) in enumerate(segments):
            cover = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
            masks[row, column] = torch.from_numpy(cover) * 2 - 1
            classes[row, column] = category
    if flips is not None:
        mirrored = torch.from_numpy(flips.random(len(scenes)) < 0.5)
        images[mirrored], masks[mirrored] = images[mirrored].flip(-1), masks[mirrored].flip(-1)
    images = PixelNormalization(PIXEL_MEAN, PIXEL_STD)(images)
    return Batch(images.contiguous(memory_format=torch.channels_last), masks, classes)


def loosen(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Makes half of the masks imprecise: blurred, grown or shrunk, with uneven borders. [B, Q, h, w] -> the same.

    PosSAM's masks are never exact, so the pooling shouldn't rely on it.
    """
    batch, count, height, width = masks.shape
    blurred = F.avg_pool2d(masks, 5, stride=1, padding=2, count_include_pad=False)
    uneven = torch.randn(batch, count, 8, 8, generator=generator) * 0.4
    uneven = F.interpolate(uneven, (height, width), mode="bilinear", align_corners=False)
    bias = torch.randn(batch, count, 1, 1, generator=generator) * 0.3
    chosen = torch.rand(batch, count, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, blurred + uneven + bias, masks)


class Sentences:
    """Tokenised sentences of every class of the world, the ids of the tokens in use made contiguous.

    The text tower is trained with a table of these rows alone: the other 49,000 are never met and aren't stored.

    Attributes:
        token_ids: [K] int64, sorted, the ids in use. Sorted, so that the end token, by which open_clip finds the
            end of a sentence, stays the largest.
    """

    def __init__(self, encoder: ClipEncoder) -> None:
        self._tokenizer = encoder.tokenizer
        self._names = [category.name for category in world_vocabulary()]
        tables = [
            self._tokenizer([t.format(word) for word in category.synonyms for t in (*VILD_TEMPLATES, "{}")])
            for category in world_vocabulary()
        ]
        self.token_ids = torch.cat([*tables, self._tokenizer([_caption(["sky", "sand"])])]).unique()
        self._tables = [self._compact(table) for table in tables]
        self._averaged = [self._compact(self._tokenizer([t.format(n) for t in VILD_TEMPLATES])) for n in self._names]

    def one_per_class(self, rng: np.random.Generator) -> Tensor:
        """[C, L] compact token ids: of each class one synonym in one template."""
        return torch.stack([table[rng.integers(len(table))] for table in self._tables])

    def of_scenes(self, classes: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Captions [B, L] that list up to three classes of each scene, and [B, B]: does scene i fit caption j?"""
        present = [set(row[row >= 0].tolist()) for row in classes]
        listed = [rng.permutation(sorted(names))[:3].tolist() for names in present]
        fits = torch.tensor([[names.issuperset(chosen) for chosen in listed] for names in present])
        captions = [_caption([self._names[index] for index in chosen]) for chosen in listed]
        return self._compact(self._tokenizer(captions)), fits

    def class_embeddings(self, encoder: ClipEncoder) -> Tensor:
        """[C, E]: of each class its name in all ViLD templates, averaged and normalised."""
        rows = [encoder.clip.encode_text(tokens, normalize=True).mean(0) for tokens in self._averaged]
        return F.normalize(torch.stack(rows), dim=-1)

    def _compact(self, tokens: Tensor) -> Tensor:
        return torch.searchsorted(self.token_ids, tokens)


def _caption(names: Sequence[str]) -> str:
    return "a photo of a " + " and a ".join(names)
