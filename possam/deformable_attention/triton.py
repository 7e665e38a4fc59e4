"""Multi-scale deformable attention on a GPU, in Triton: compiled by what PyTorch's wheels for Linux bring.

**Untested on a GPU.** What was seen: results and gradients are right in Triton's interpreter, and it makes code for
compute capability 8.0 and 9.0, with loads of 16 bytes and, for 9.0, four sums in one atomic operation
(tests/possam/deformable_attention/test_triton.py).

One program is one head of one image and a block of queries: of these each thread has as many channels of one as it can
write at once. Sums are in float32, or float64 where something is. The backward pass writes the gradients of locations
and weights without atomics; that of `value` is summed by atomics and therefore differs from run to run by rounding.
Shapes as in `deformable_attention`.
"""

# mypy: allow-untyped-defs
# Shape legend: Q queries of a block, C channels of a head, padded to a power of two.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

NAME = "triton"
_MAX_SAMPLES = 64  # L·P, which is unrolled
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_WARPS = 4
_BYTES = 16  # that a thread writes at once


@triton.jit
def _locate(locations, weights, sample, real, h, w, SUM: tl.constexpr):
    """Of Q samples: weight, the cell above and to the left, and how far they are from its centre."""
    weight = tl.load(weights + sample, real, 0.0).to(SUM)
    x = tl.load(locations + 2 * sample, real, 0.0).to(SUM) * w - 0.5
    y = tl.load(locations + 2 * sample + 1, real, 0.0).to(SUM) * h - 0.5
    left, top = tl.floor(x), tl.floor(y)
    return weight, left, top, x - left, y - top


@triton.jit
def _corner(left, top, east, south, real, h, w, CORNER: tl.constexpr):
    """One of the four cells around them: is it on the map, which is it, its share across and down.

    Compared before they become integers: a location may be anything, also NaN, for which every comparison is false.
    """
    column, line = left + CORNER % 2, top + CORNER // 2
    inside = real & (column >= 0) & (column < w) & (line >= 0) & (line < h)
    cell = tl.where(inside, line, 0).to(tl.int32) * w + tl.where(inside, column, 0).to(tl.int32)
    across = east if CORNER % 2 else 1 - east
    down = south if CORNER // 2 else 1 - south
    return inside, cell, across, down


@triton.jit
def _forward(
    value,
    locations,
    weights,
    output,
    sizes,
    tokens,
    queries,
    HEADS: tl.constexpr,
    DEPTH: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    SUM: tl.constexpr,
    Q: tl.constexpr,
    C: tl.constexpr,
):
    blocks = tl.cdiv(queries, Q)
    head = tl.program_id(0) // blocks % HEADS
    image = (tl.program_id(0) // (blocks * HEADS)).to(tl.int64)  # an image has fewer than 2³¹ numbers, a batch may not
    query = tl.program_id(0) % blocks * Q + tl.arange(0, Q)
    channel = tl.arange(0, C)
    real, whole = query < queries, (channel < DEPTH)[None, :]
    row = query * HEADS + head
    value += image * tokens * (HEADS * DEPTH) + head * DEPTH
    locations += image * queries * (HEADS * LEVELS * POINTS * 2)
    weights += image * queries * (HEADS * LEVELS * POINTS)
    output += image * queries * (HEADS * DEPTH)
    total = tl.zeros((Q, C), SUM)
    start = 0
    for level in tl.static_range(LEVELS):
        h = sizes[2 * level]
        w = sizes[2 * level + 1]
        for point in tl.static_range(POINTS):
            sample = (row * LEVELS + level) * POINTS + point
            weight, left, top, east, south = _locate(locations, weights, sample, real, h, w, SUM)
            for corner in tl.static_range(4):
                inside, cell, across, down = _corner(left, top, east, south, real, h, w, corner)
                at = ((start + cell) * (HEADS * DEPTH))[:, None] + channel[None, :]
                channels = tl.load(value + at, inside[:, None] & whole, 0.0).to(SUM)
                total += (weight * across * down)[:, None] * channels
        start += h * w
    at = (row * DEPTH)[:, None] + channel[None, :]
    tl.store(output + at, total.to(output.dtype.element_ty), real[:, None] & whole)


@triton.jit
def _backward(
    grad,
    value,
    locations,
    weights,
    grad_value,
    grad_locations,
    grad_weights,
    sizes,
    tokens,
    queries,
    HEADS: tl.constexpr,
    DEPTH: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    SUM: tl.constexpr,
    Q: tl.constexpr,
    C: tl.constexpr,
):
    blocks = tl.cdiv(queries, Q)
    head = tl.program_id(0) // blocks % HEADS
    image = (tl.program_id(0) // (blocks * HEADS)).to(tl.int64)
    query = tl.program_id(0) % blocks * Q + tl.arange(0, Q)
    channel = tl.arange(0, C)
    real, whole = query < queries, (channel < DEPTH)[None, :]
    row = query * HEADS + head
    cells = image * tokens * (HEADS * DEPTH) + head * DEPTH
    samples = image * queries * (HEADS * LEVELS * POINTS)
    value += cells
    grad_value += cells
    locations += 2 * samples
    grad_locations += 2 * samples
    weights += samples
    grad_weights += samples
    at = (row * DEPTH)[:, None] + channel[None, :]
    upstream = tl.load(grad + image * queries * (HEADS * DEPTH) + at, real[:, None] & whole, 0.0).to(SUM)
    start = 0
    for level in tl.static_range(LEVELS):
        h = sizes[2 * level]
        w = sizes[2 * level + 1]
        for point in tl.static_range(POINTS):
            sample = (row * LEVELS + level) * POINTS + point
            weight, left, top, east, south = _locate(locations, weights, sample, real, h, w, SUM)
            by_weight, by_x, by_y = tl.zeros((Q,), SUM), tl.zeros((Q,), SUM), tl.zeros((Q,), SUM)
            for corner in tl.static_range(4):
                inside, cell, across, down = _corner(left, top, east, south, real, h, w, corner)
                at = ((start + cell) * (HEADS * DEPTH))[:, None] + channel[None, :]
                there = inside[:, None] & whole
                dot = tl.sum(upstream * tl.load(value + at, there, 0.0).to(SUM), 1)
                tl.atomic_add(grad_value + at, (weight * across * down)[:, None] * upstream, there, sem="relaxed")
                by_weight += across * down * dot
                by_x += (down if corner % 2 else -down) * dot
                by_y += (across if corner // 2 else -across) * dot
            tl.store(grad_weights + sample, by_weight, real)
            tl.store(grad_locations + 2 * sample, weight * w * by_x, real)
            tl.store(grad_locations + 2 * sample + 1, weight * h * by_y, real)
        start += h * w


def fits(value: Tensor, locations: Tensor) -> bool:
    """Whether it can do this. Within an image it counts in 32 bits."""
    small = math.prod(value.shape[1:]) < 2**31 and math.prod(locations.shape[1:]) < 2**31
    return value.dtype in _DTYPES and small and locations.shape[-3] * locations.shape[-2] <= _MAX_SAMPLES


def forward(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The result, in the dtype of `value`."""
    output = value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    _launch(_forward, sizes, [x.contiguous() for x in (value, locations, weights)], [output])
    return output


def backward(
    grad: Tensor, value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in its dtype, for that of the result."""
    sources = [x.contiguous() for x in (grad, value, locations, weights)]
    by_value = torch.zeros_like(sources[1], dtype=_precision(value, locations))
    by_locations, by_weights = (torch.empty_like(x) for x in sources[2:])
    _launch(_backward, sizes, sources, [by_value, by_locations, by_weights])
    return by_value.to(value.dtype), by_locations, by_weights


def _precision(value: Tensor, locations: Tensor) -> torch.dtype:
    """What is summed in."""
    return torch.promote_types(torch.promote_types(value.dtype, locations.dtype), torch.float32)


def _launch(kernel: Any, sizes: Sequence[int], sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Sources end with value, locations, weights; the first target is as wide as value."""
    value, locations = sources[-3], sources[-2]
    batch, tokens, heads, depth = value.shape
    _, queries, _, levels, points, _ = locations.shape
    if batch * queries * heads == 0:
        return
    channels = triton.next_power_of_2(depth)
    rows = max(1, _WARPS * 32 * _BYTES // (channels * targets[0].element_size()))
    precise = tl.float64 if _precision(value, locations) == torch.float64 else tl.float32
    constants = (heads, depth, levels, points, precise, rows, channels)
    with torch.cuda.device_of(value):
        grid = (batch * heads * triton.cdiv(queries, rows),)
        options = {"num_warps": _WARPS, "enable_fp_fusion": True}
        kernel[grid](*sources, *targets, tuple(sizes), tokens, queries, *constants, **options)
