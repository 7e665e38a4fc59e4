"""Multi-scale deformable attention: the operator and the module.

Deformable DETR (Zhu et al., arXiv 2010.04159), Eq. (3):

    MSDeformAttn(z, p, {x_l}) = Σ_m W_m [ Σ_l Σ_k A_mlk · W'_m x_l(φ_l(p) + Δp_mlk) ]

    z      queries              W'_m x   value        A_mlk   weights (sum to 1 over l and k)
    p      reference_points     Δp_mlk   offsets      φ_l(p) + Δp_mlk   locations
    W_m    output_projection

Shapes: B images, S tokens of all maps together (map after map, row-major), N queries, L maps, P points, D channels per
head. x_l(·) samples bilinearly; cell centres lie at half-integers (align_corners=False) and beyond the map is zero.

The operator is `torch.ops.detectron2_sam.deformable_attention`. What is registered is the PyTorch implementation on
every device; its gradient is PyTorch's own through it, which beats a hand-written backward that samples a second time.
A kernel for one device is registered beside it, with `torch.library.impl` for that device's key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LIBRARY = torch.library.Library("detectron2_sam", "FRAGMENT")
# The map sizes are plain numbers (h_0, w_0, h_1, w_1, …): a tensor would have to be read back from the device.
_LIBRARY.define("deformable_attention(Tensor value, SymInt[] sizes, Tensor locations, Tensor weights) -> Tensor")


def deformable_attention(
    value: Tensor, spatial_shapes: Tensor | Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Samples every map at every location and sums with the weights, head by head.

    Differentiable in `value`, `locations` and `weights`. Computes in the precision of `locations`.

    Args:
        value: [B, S, heads, D], S = Σ h·w.
        spatial_shapes: [L, 2], (h, w) of each map; pairs of numbers spare a read-back that a tensor on a GPU needs.
        locations: [B, N, heads, L, P, 2], xy; [0, 1] spans the map from edge to edge.
        weights: [B, N, heads, L, P].

    Returns:
        [B, N, heads·D] in the dtype of `value`.
    """
    pairs = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
    sizes = [size for pair in pairs for size in pair]
    return torch.ops.detectron2_sam.deformable_attention(value, sizes, locations, weights)


def _deformable_attention(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, depth = value.shape
    _, queries, _, levels, points, _ = locations.shape
    shapes = list(zip(sizes[::2], sizes[1::2], strict=True))
    # The queries go innermost: long rows of memory in the sampling and in both sums.
    maps = value.to(locations.dtype).permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], dim=-1)
    grids = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5).reshape(batch * heads, levels, points, queries, 2)
    rows = weights.to(locations.dtype).permute(0, 2, 3, 4, 1).reshape(batch * heads, levels, 1, points, queries)
    output = value.new_zeros((), dtype=locations.dtype)
    for level, shape in enumerate(shapes):
        sampled = F.grid_sample(maps[level].unflatten(-1, shape), grids[:, level], align_corners=False)
        output = output + (sampled * rows[:, level]).sum(2)  # [B·heads, D, P, N] -> [B·heads, D, N]
    return output.view(batch, heads * depth, queries).transpose(1, 2).to(value.dtype).contiguous()


def _fake_deformable_attention(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


_LIBRARY.impl("deformable_attention", _deformable_attention, "CompositeExplicitAutograd")
_LIBRARY.impl("deformable_attention", _deformable_attention, "Autograd")
torch.library.register_fake("detectron2_sam::deformable_attention", _fake_deformable_attention, lib=_LIBRARY)


class MultiScaleDeformableAttention(nn.Module):
    """Attention to a few learned points around each query's reference point, on every map."""

    def __init__(self, width: int, *, num_levels: int, num_heads: int, num_points: int) -> None:
        super().__init__()
        self.num_levels, self.num_heads, self.num_points = num_levels, num_heads, num_points
        self.offsets = nn.Linear(width, num_heads * num_levels * num_points * 2)
        self.weights = nn.Linear(width, num_heads * num_levels * num_points)
        self.value_projection = nn.Linear(width, width)
        self.output_projection = nn.Linear(width, width)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """At first every query looks, with equal weights, 1 … P cells away; each head in a direction of its own."""
        for projection in (self.value_projection, self.output_projection):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
        for linear in (self.weights, self.offsets):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        bias = self.offsets.bias
        angles = torch.arange(self.num_heads, device=bias.device) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, device=bias.device)
        start = directions[:, None, None] * steps[:, None]  # [heads, 1, P, 2]
        with torch.no_grad():
            bias.copy_(start.expand(-1, self.num_levels, -1, -1).flatten())

    def forward(
        self, queries: Tensor, reference_points: Tensor, memory: Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Args: queries [B,N,W]; reference_points [N,2], xy in [0,1]; memory [B,S,W]; spatial_shapes L × (h,w).

        Returns [B, N, W].
        """
        batch, num_queries, _ = queries.shape
        per_head = (batch, num_queries, self.num_heads, self.num_levels, self.num_points)
        # Offsets are learned in cells. Everything stays in rows of heads·L·P·2 numbers: short rows are slow on a CPU.
        cells = torch.stack([reference_points.new_full((), 1 / size) for h, w in spatial_shapes for size in (w, h)])
        cells = cells.view(-1, 1, 2).expand(-1, self.num_points, -1).flatten().repeat(self.num_heads)
        centres = reference_points.repeat(1, len(cells) // 2)
        locations = torch.addcmul(centres, self.offsets(queries).to(cells.dtype), cells)
        weights = self.weights(queries).view(*per_head[:3], -1).softmax(-1)
        value = self.value_projection(memory).unflatten(-1, (self.num_heads, -1))
        attended = deformable_attention(value, spatial_shapes, locations.view(*per_head, 2), weights.view(per_head))
        return self.output_projection(attended)
