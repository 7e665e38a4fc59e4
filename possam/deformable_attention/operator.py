"""Multi-scale deformable attention: the operator and the module.

Deformable DETR (Zhu et al., arXiv 2010.04159), Eq. (3):

    MSDeformAttn(z, p, {x_l}) = Σ_m W_m [ Σ_l Σ_k A_mlk · W'_m x_l(φ_l(p) + Δp_mlk) ]

    z      queries              W'_m x   value        A_mlk   weights (sum to 1 over l and k)
    p      reference_points     Δp_mlk   offsets      φ_l(p) + Δp_mlk   locations
    W_m    output_projection

Shapes: B images, S tokens of all maps together (map after map, row-major), N queries, L maps, P points, D channels per
head. x_l(·) samples bilinearly; cell centres lie at half-integers (align_corners=False) and beyond the map is zero.

The operator is `torch.ops.detectron2_sam.deformable_attention`, with these kernels, of which the first that fits runs:

    c++      CPU, float32 and float64: cpu.py and cpu.cpp, compiled when first needed
    cuda     NVIDIA GPU, where it was built (build_cuda.py): cuda.py and cuda.cu; untested on a GPU
    triton   NVIDIA GPU, where Triton is, as in PyTorch's wheels: triton.py; untested on a GPU
    pytorch  everything else; its gradient is PyTorch's own through it

`kernel_in_use` tells which one runs, and `$DETECTRON2_SAM_KERNELS` chooses (native.py).

On a CPU all are deterministic and give one result whatever the number of threads. On a GPU none is in its backward
pass: the gradient of the value is summed by atomics, whose order changes, so runs differ by rounding. Under
`torch.use_deterministic_algorithms(True)` PyTorch's kernel runs there, and PyTorch says that it is not either, by an
error or a warning; a training that must repeat to the last bit runs on a CPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from possam.deformable_attention import cpu, cuda
from possam.deformable_attention.build_cuda import why_no_build
from sam_common.io.native import KERNELS_VARIABLE, NoKernel, load

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
    if torch.jit.is_tracing():  # a trace knows PyTorch's own operators only, and keeps the sizes variable
        return sampled_attention(value, sizes, locations, weights)
    return torch.ops.detectron2_sam.deformable_attention(value, sizes, locations, weights)


def kernel_in_use(device: torch.device) -> str:
    """The kernel that a device runs, for a log: its name, and why it is no better one. Compiles the CPU's."""
    try:
        kernel = _compiled_kernel(device)
    except NoKernel as reason:
        return f"pytorch ({reason})"
    return f"triton ({_why_not_cuda(device)})" if kernel.NAME == "triton" else kernel.NAME


def _compiled_kernel(device: torch.device) -> ModuleType:
    """The module with the kernel for a device: `NAME`, `fits`, `forward`, `backward`.

    Raises:
        NoKernel: there is none but PyTorch's.
    """
    if os.environ.get(KERNELS_VARIABLE, "") == "pytorch":
        raise NoKernel(f"{KERNELS_VARIABLE} is pytorch")
    if device.type == "cpu":
        load(cpu.SOURCE)
        return cpu
    if device.type != "cuda" or torch.version.hip:
        raise NoKernel("the others are for CPUs and NVIDIA GPUs")
    if not torch.cuda.is_available():  # tensors may claim a GPU all the same, while something is traced
        raise NoKernel("PyTorch sees no GPU")
    if torch.are_deterministic_algorithms_enabled():
        raise NoKernel("torch.use_deterministic_algorithms is set")
    if not _why_not_cuda(device):
        return cuda
    if reason := _why_not_triton():
        raise NoKernel(reason)
    if torch.cuda.get_device_capability(device) < (7, 0):
        raise NoKernel("the GPU is too old for Triton, which wants compute capability 7.0")
    from possam.deformable_attention import triton  # takes a second; only GPUs need it

    return triton


def sampled_attention(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """PyTorch's kernel: `grid_sample` map by map, weighted and summed; arguments as the operator has them."""
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


def _why_not_cuda(device: torch.device) -> str:
    """Why the CUDA build does not run on this GPU; "" where it does."""
    if os.environ.get(KERNELS_VARIABLE, "") == "triton":
        return f"{KERNELS_VARIABLE} is triton"
    return why_no_build(device)


@cache
def _why_not_triton() -> str:
    """Why Triton cannot be used; "" where it can. Kernels take tuples from 3.3 on."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    version = importlib.import_module("triton").__version__
    old = tuple(map(int, version.split(".")[:2])) < (3, 3)
    return f"Triton {version} is older than 3.3, which PyTorch has from 2.7 on" if old else ""


def _fits(value: Tensor, locations: Tensor) -> bool:
    """Whether there is a compiled kernel, which can do this."""
    try:
        return _compiled_kernel(locations.device).fits(value, locations)
    except NoKernel:
        return False


def _check(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> None:
    """What the pointers are trusted with."""
    batch, tokens, heads, _ = value.shape
    expected = (batch, locations.shape[1], heads, len(sizes) // 2, locations.shape[4])
    cells = sum(h * w for h, w in zip(sizes[::2], sizes[1::2], strict=True))
    if min(sizes) < 1 or cells != tokens or weights.shape != expected or locations.shape != (*expected, 2):
        shapes = f"value {tuple(value.shape)}, locations {tuple(locations.shape)}, weights {tuple(weights.shape)}"
        raise ValueError(f"these do not belong together: map sizes {list(sizes)}, {shapes}")
    if len(devices := {str(x.device) for x in (value, locations, weights)}) > 1:
        raise ValueError(f"these are on several devices: {', '.join(sorted(devices))}")


def _compiled(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    _check(value, sizes, locations, weights)
    return _compiled_kernel(locations.device).forward(value, sizes, locations, weights)


def _compiled_backward(
    grad: Tensor, value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, ...]:
    _check(value, sizes, locations, weights)
    return _compiled_kernel(locations.device).backward(grad, value, sizes, locations, weights)


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
    return (_Compiled.apply if _fits(value, locations) else sampled_attention)(value, sizes, locations, weights)


def _fake(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


def _fake_backward(grad: Tensor, value: Tensor, sizes: Sequence[int], *others: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (value, *others))


_LIBRARY.impl("deformable_attention", _deformable_attention, "CompositeExplicitAutograd")
_LIBRARY.impl("deformable_attention", _deformable_attention, "Autograd")
for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("compiled_deformable_attention", _compiled, _device)
    _LIBRARY.impl("compiled_deformable_attention_backward", _compiled_backward, _device)
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
