"""Simple feature pyramid: SAM's one stride-16 map becomes maps at strides 4, 8, 16 and 32.

PosSAM (arXiv 2403.09620), Section 3 and Figure 3, after ViTDet (Li et al., arXiv 2203.16527).

    s4 = ConvT2×2(GELU(LN(ConvT2×2(x))))    s8 = ConvT2×2(x)    s16 = x    s32 = Conv3×3, stride 2 (x)

x is `image_embeddings`, the output of SAM's encoder. No channel count changes; that there are no further norms or
convolutions follows from the paper's parameter totals.
"""

from __future__ import annotations

import torch.nn.functional as F
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """[B, C, h, w] at stride 16 -> {"s4", "s8", "s16", "s32"}, each [B, C, ·, ·]; s32 is rounded up to whole cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.s4 = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            LayerNorm2d(channels),
            nn.GELU(),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
        )
        self.s8 = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.s16 = nn.Identity()
        self.s32 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, image_embeddings: Tensor) -> dict[str, Tensor]:
        return {name: level(image_embeddings) for name, level in self.named_children()}


class ResizedFeatures(nn.Module):
    """The stand-in when the pyramid is off (Table 4): the same map, resized bilinearly; nothing to learn."""

    def forward(self, image_embeddings: Tensor) -> dict[str, Tensor]:
        h, w = image_embeddings.shape[-2:]
        sizes = {"s4": (4 * h, 4 * w), "s8": (2 * h, 2 * w), "s16": (h, w), "s32": ((h + 1) // 2, (w + 1) // 2)}
        return {name: F.interpolate(image_embeddings, size, mode="bilinear") for name, size in sizes.items()}
