"""Simple feature pyramid: SAM's one stride-16 map becomes maps at strides 4, 8, 16 and 32.

PosSAM (arXiv 2403.09620), Section 3 and Figure 3, after ViTDet (Li et al., arXiv 2203.16527).

    p2 = ConvT2×2(GELU(LN(ConvT2×2(x))))    p3 = ConvT2×2(x)    p4 = x    p5 = Conv3×3, stride 2 (x)

p_k has stride 2^k; x is `image_embeddings`, the output of SAM's encoder. No channel count changes; that there are no
further norms or convolutions follows from the paper's parameter totals.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """[B, C, h, w] at stride 16 -> {"p2", "p3", "p4", "p5"}, each [B, C, ·, ·]; p5 is rounded up to whole cells."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.p2 = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            LayerNorm2d(channels),
            nn.GELU(),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
        )
        self.p3 = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.p4 = nn.Identity()
        self.p5 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, image_embeddings: Tensor) -> dict[str, Tensor]:
        return {name: level(image_embeddings) for name, level in self.named_children()}


class ResizedFeatures(nn.Module):
    """The stand-in when the pyramid is off (Table 4): the same map, resized bilinearly; nothing to learn."""

    def forward(self, image_embeddings: Tensor) -> dict[str, Tensor]:
        h, w = image_embeddings.shape[-2:]
        sizes = {"p2": (4 * h, 4 * w), "p3": (2 * h, 2 * w), "p4": (h, w), "p5": ((h + 1) // 2, (w + 1) // 2)}
        return {name: F.interpolate(image_embeddings, size, mode="bilinear") for name, size in sizes.items()}


class SamBackbone(nn.Module):
    """Images to a pyramid of four maps: SAM's image encoder, usually frozen, and a pyramid on its output.

    Args:
        image_encoder: [B, 3, H, W], normalised, H and W multiples of 16 -> [B, C, H/16, W/16]; has `out_channels` C.
            Its weights train if they require a gradient.
        feature_pyramid: one of the above, for C channels.
    """

    size_divisor = 32
    """What the height and width of images must be a multiple of: the coarsest stride."""

    def __init__(self, image_encoder: nn.Module, feature_pyramid: nn.Module) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.feature_pyramid = feature_pyramid
        self.out_channels = cast(int, image_encoder.out_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W], normalised -> "p2" … "p5", each [B, C, H/2^k, W/2^k]."""
        return self.feature_pyramid(self.image_encoder(images))
