"""Pixel decoder: multi-scale deformable attention over strides 32, 16, 8, then one feature per stride-4 pixel.

PosSAM (arXiv 2403.09620), Section 3 and Figure 3, with Mask2Former's pixel decoder (Cheng et al., arXiv 2112.01527).

    x_l    = GroupNorm(P_l f_l)                                   l = p5, p4, p3
    x      = Layer_6(… Layer_1([x_p5; x_p4; x_p3]))             positions: sine(p) + e_l, added to the queries only
    F_mask = W_m ReLU(GN(C_3×3( GN(C_1×1 f_p2) + up(x_p3) )))

    f_l -> features[l]    P_l -> projections    e_l -> level_embeddings    C_1×1 -> lateral    C_3×3 -> smooth
    W_m -> mask_projection    F_mask -> mask_features
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from possam.deformable_attention.operator import MultiScaleDeformableAttention
from possam.position_encoding import cell_centres, sine_encoding

LEVELS = ("p5", "p4", "p3")
"""The maps that the decoders attend to, coarse to fine."""


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention, then a feed-forward network; each is added and normalised (post-norm)."""

    def __init__(self, width: int, *, num_heads: int, num_points: int, ffn_width: int) -> None:
        super().__init__()
        self.attention = MultiScaleDeformableAttention(
            width, num_levels=len(LEVELS), num_heads=num_heads, num_points=num_points
        )
        self.norm1 = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, ffn_width), nn.ReLU(), nn.Linear(ffn_width, width))
        self.norm2 = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, positions: Tensor, reference_points: Tensor, spatial_shapes: list[tuple[int, int]]
    ) -> Tensor:
        attended = self.attention(tokens + positions, reference_points, tokens, spatial_shapes)
        tokens = self.norm1(tokens + attended)
        return self.norm2(tokens + self.ffn(tokens))


class PixelDecoder(nn.Module):
    """Args: in_channels of the pyramid's maps; width W of everything that leaves, a multiple of 32 and of num_heads."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        ffn_width: int = 1024,
    ) -> None:
        super().__init__()
        self.width = width
        self.projections = nn.ModuleDict(
            {name: nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.GroupNorm(32, width)) for name in LEVELS}
        )
        self.level_embeddings = nn.Embedding(len(LEVELS), width)
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(width, num_heads=num_heads, num_points=num_points, ffn_width=ffn_width)
            for _ in range(num_layers)
        )
        self.lateral = nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), nn.GroupNorm(32, width))
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(32, width), nn.ReLU()
        )
        self.mask_projection = nn.Conv2d(width, width, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Args: features: "p2", "p3", "p4", "p5" -> [B, in_channels, ·, ·].

        Returns: mask_features [B, W, h4, w4], and the maps [p5, p4, p3], each [B, W, ·, ·].
        """
        maps = [self.projections[name](features[name]) for name in LEVELS]
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        lengths = [h * w for h, w in shapes]
        tokens = torch.cat([x.flatten(2) for x in maps], dim=-1).transpose(1, 2)  # [B, S, W]
        reference_points = torch.cat([cell_centres(h, w, tokens.device) for h, w in shapes])  # [S, 2]
        level_of_token = torch.cat([self.level_embeddings.weight[i].expand(n, -1) for i, n in enumerate(lengths)])
        positions = sine_encoding(reference_points, self.width) + level_of_token  # [S, W]
        for layer in self.layers:
            tokens = layer(tokens, positions, reference_points, shapes)
        encoded = tokens.transpose(1, 2).split(lengths, dim=-1)
        multi_scale = [x.unflatten(-1, shape) for x, shape in zip(encoded, shapes, strict=True)]

        fine = self.lateral(features["p2"])
        fine = fine + F.interpolate(multi_scale[-1], fine.shape[-2:], mode="bilinear")
        return self.mask_projection(self.smooth(fine)), multi_scale
