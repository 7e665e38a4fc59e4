"""Maps of segments with the shapes that real ones have: large regions, smooth borders, a few small things."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def segment_map(height: int, width: int, segments: int, *, seed: int) -> Tensor:
    """Labels 0 … segments-1 int64 [H, W], each at least once: where a smooth random field of its own is highest."""
    scores = class_scores(height, width, segments, seed=seed)
    labels = scores.argmax(dim=0)
    labels.view(-1)[torch.linspace(0, labels.numel() - 1, segments).long()] = torch.arange(segments)
    return labels


def class_scores(height: int, width: int, classes: int, *, seed: int) -> Tensor:
    """Smooth random scores float32 [C, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, max(2, height // 64), max(2, width // 64), generator=generator)
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
