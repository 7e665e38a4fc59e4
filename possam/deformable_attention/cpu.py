"""Multi-scale deformable attention on a CPU: calls `cpu.cpp`, compiled when first needed (native.py).

float32 and float64; other values are computed in the precision of the locations. Shapes as in `deformable_attention`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam_common.io.native import load

NAME = "c++"
SOURCE = Path(__file__).with_name("cpu.cpp")
MAX_POINTS = 64
"""BLOCK of the source."""


class _Shape(ctypes.Structure):
    """`Shape` of the source."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("B", "S", "H", "D", "N", "L", "P", "threads"))


def fits(value: Tensor, locations: Tensor) -> bool:
    """Whether it can do this."""
    return locations.dtype in (torch.float32, torch.float64) and 0 < locations.shape[-2] <= MAX_POINTS


def forward(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The result, in the dtype of `value`."""
    sources = [x.to(locations.dtype).contiguous() for x in (value, locations, weights)]
    output = sources[0].new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    _run("forward", sizes, sources, [output])
    return output.to(value.dtype)


def backward(
    grad: Tensor, value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in its dtype, for that of the result."""
    sources = [x.to(locations.dtype).contiguous() for x in (grad, value, locations, weights)]
    by_value, by_locations, by_weights = (source.new_empty(source.shape) for source in sources[1:])
    _run("backward", sizes, sources, [by_value, by_locations, by_weights])
    return by_value.to(value.dtype), by_locations, by_weights.to(weights.dtype)


def _run(direction: str, sizes: Sequence[int], sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Calls `direction` of the source. Sources end with value, locations, weights; all contiguous, of one dtype."""
    value, locations = sources[-3], sources[-2]
    batch, tokens, heads, depth = value.shape
    queries, levels, points = locations.shape[1], len(sizes) // 2, locations.shape[4]
    function = getattr(load(SOURCE), f"{direction}_{str(value.dtype).removeprefix('torch.')}")
    pointers: list[Any] = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*sources, *targets)]
    pointers.insert(len(sources) - 2, (ctypes.c_int64 * len(sizes))(*sizes))  # behind value
    threads = torch.get_num_threads()
    if function(*pointers, ctypes.byref(_Shape(batch, tokens, heads, depth, queries, levels, points, threads))):
        raise MemoryError("deformable attention: there is no memory left")
