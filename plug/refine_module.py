"""Refine module: the amodal mask again, from the image, both branches' masks and where they are in doubt.

PLUG, Eq. 11. The channels are

    [image (3), p_v, p_a, u_v, u_a] -> 7        with one branch: [image (3), p_a, u_a] -> 5

and go through residual blocks, 3×3 conv-BN-ReLU-3×3 conv-BN beside a 1×1 conv-BN, then a 1×1 convolution to logits.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, H, W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.skip = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual(x) + self.skip(x))


class NoRefinement(nn.Module):
    """The stand-in when the module is off (Table 2): the amodal branch's own logits; nothing to learn."""

    def forward(self, images: Tensor, mask_logits: Tensor, uncertainty_maps: Tensor) -> Tensor:
        return mask_logits[:, -1:]


class RefineModule(nn.Module):
    """Refined amodal logits.

    Args:
        num_branches: masks that come in, each with its uncertainty: 2, or 1 for a single LoRA (Table 2).
        width: channels inside.
        num_blocks: residual blocks.
    """

    def __init__(self, num_branches: int = 2, *, width: int = 128, num_blocks: int = 1) -> None:
        super().__init__()
        channels = [3 + 2 * num_branches, *[width] * num_blocks]
        self.blocks = nn.Sequential(*(ResidualBlock(before, after) for before, after in pairwise(channels)))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor, mask_logits: Tensor, uncertainty_maps: Tensor) -> Tensor:
        """The logits of the amodal mask, refined.

        Args:
            images: [B, 3, H, W], normalised.
            mask_logits, uncertainty_maps: [B, num_branches, H, W], visible before amodal.

        Returns:
            [B, 1, H, W].
        """
        return self.head(self.blocks(torch.cat((images, mask_logits.sigmoid(), uncertainty_maps), dim=1)))
