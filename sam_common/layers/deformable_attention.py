"""Multi-scale deformable attention: the operator and the module.

Deformable DETR (Zhu et al., arXiv 2010.04159), Eq. (3):

    MSDeformAttn(z, p, {x_l}) = Σ_m W_m [ Σ_l Σ_k A_mlk · W'_m x_l(φ_l(p) + Δp_mlk) ]

    z      queries              W'_m x   value        A_mlk   weights (sum to 1 over l and k)
    p      reference_points     Δp_mlk   offsets      φ_l(p) + Δp_mlk   locations
    W_m    output_projection

Shapes: B images, S tokens of all maps together (map after map, row-major), N queries, L maps, P points, D channels per
head. x_l(·) samples bilinearly; cell centres lie at half-integers (align_corners=False) and beyond the map is zero.

The operator is `torch.ops.detectron2_sam.deformable_attention`, with these kernels, of which the first that fits runs:

    c++      CPU, float32 and float64: deformable_attention.cpp, compiled when first needed (native.py)
    pytorch  everything else; its gradient is PyTorch's own through it

Both are deterministic and give one result whatever the number of threads; `kernel_in_use` tells which one runs.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sam_common.layers.native import NoKernel, load

_SOURCE = Path(__file__).with_suffix(".cpp")
_MAX_POINTS = 64
"""BLOCK of the C++ source."""

_LIBRARY = torch.library.Library("detectron2_sam", "FRAGMENT")
# The map sizes are plain numbers (h_0, w_0, h_1, w_1, …): a tensor would have to be read back from the device.
_ARGUMENTS = "Tensor value, SymInt[] sizes, Tensor locations, Tensor weights"
_LIBRARY.define(f"deformable_attention({_ARGUMENTS}) -> Tensor")
_LIBRARY.define(f"compiled_deformable_attention({_ARGUMENTS}) -> Tensor")
_LIBRARY.define(f"compiled_deformable_attention_backward(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")


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


def kernel_in_use(device: torch.device) -> str:
    """The kernel that a device runs, for a log: `c++`, or `pytorch` and on a CPU why. Compiles what was not yet."""
    if device.type != "cpu":
        return "pytorch"
    try:
        load(_SOURCE)
    except NoKernel as reason:
        return f"pytorch ({reason})"
    return "c++"


def _fits(locations: Tensor) -> bool:
    """Whether the compiled kernel is here and can do this."""
    if locations.device.type != "cpu" or locations.dtype not in (torch.float32, torch.float64):
        return False
    return 0 < locations.shape[-2] <= _MAX_POINTS and kernel_in_use(locations.device) == "c++"


def _pytorch(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
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


class _Shape(ctypes.Structure):
    """`Shape` of the C++ source."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("B", "S", "H", "D", "N", "L", "P", "threads"))


def _run_compiled(direction: str, sizes: Sequence[int], sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Calls `direction` of the C++ source. Sources end with value, locations, weights; all contiguous, of one dtype."""
    value, locations, weights = sources[-3:]
    batch, tokens, heads, depth = value.shape
    queries, levels, points = locations.shape[1], len(sizes) // 2, locations.shape[4]
    cells = sum(h * w for h, w in zip(sizes[::2], sizes[1::2], strict=True))
    expected = (batch, queries, heads, levels, points)  # what the pointers are trusted with
    if min(sizes) < 1 or cells != tokens or weights.shape != expected or locations.shape != (*expected, 2):
        shapes = f"value {tuple(value.shape)}, locations {tuple(locations.shape)}, weights {tuple(weights.shape)}"
        raise ValueError(f"these do not belong together: map sizes {list(sizes)}, {shapes}")
    function = getattr(load(_SOURCE), f"{direction}_{str(value.dtype).removeprefix('torch.')}")
    pointers: list[Any] = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*sources, *targets)]
    pointers.insert(len(sources) - 2, (ctypes.c_int64 * len(sizes))(*sizes))  # behind value
    threads = torch.get_num_threads()
    if function(*pointers, ctypes.byref(_Shape(batch, tokens, heads, depth, queries, levels, points, threads))):
        raise MemoryError("deformable attention: there is no memory left")


def _compiled(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    sources = [x.to(locations.dtype).contiguous() for x in (value, locations, weights)]
    output = sources[0].new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    _run_compiled("forward", sizes, sources, [output])
    return output.to(value.dtype)


def _compiled_backward(
    grad: Tensor, value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, ...]:
    inputs = (value, locations, weights)
    sources = [x.to(locations.dtype).contiguous() for x in (grad, *inputs)]
    gradients = [source.new_empty(source.shape) for source in sources[1:]]
    _run_compiled("backward", sizes, sources, gradients)
    return tuple(gradient.to(x.dtype) for gradient, x in zip(gradients, inputs, strict=True))


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(value, locations, weights)
        ctx.sizes = sizes
        return torch.ops.detectron2_sam.compiled_deformable_attention(value, sizes, locations, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, locations, weights = ctx.saved_tensors
        backward = torch.ops.detectron2_sam.compiled_deformable_attention_backward
        by_value, by_locations, by_weights = backward(grad, value, ctx.sizes, locations, weights)
        return by_value, None, by_locations, by_weights


def _deformable_attention(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return (_Compiled.apply if _fits(locations) else _pytorch)(value, sizes, locations, weights)


def _fake(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


def _fake_backward(grad: Tensor, value: Tensor, sizes: Sequence[int], *others: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (value, *others))


_LIBRARY.impl("deformable_attention", _deformable_attention, "CompositeExplicitAutograd")
_LIBRARY.impl("deformable_attention", _deformable_attention, "Autograd")
_LIBRARY.impl("compiled_deformable_attention", _compiled, "CPU")
_LIBRARY.impl("compiled_deformable_attention_backward", _compiled_backward, "CPU")
for _name, _fake_kernel in (
    ("deformable_attention", _fake),
    ("compiled_deformable_attention", _fake),
    ("compiled_deformable_attention_backward", _fake_backward),
):
    torch.library.register_fake(f"detectron2_sam::{_name}", _fake_kernel, lib=_LIBRARY)


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
