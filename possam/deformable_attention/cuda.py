"""Multi-scale deformable attention on a GPU: calls `cuda.cu` where build_cuda.py has built it.

**Untested on a GPU.** What was seen: nvcc makes code of it for compute capability 8.0 and 9.0, and the same functions,
compiled for a CPU, give the right results and gradients (tests/possam/deformable_attention/test_cuda.py).

Sums are in float32, or float64 where something is. The gradient of `value` is summed by atomics and therefore differs
from run to run by rounding. Runs in PyTorch's current stream and waits for nothing. Shapes as in
`deformable_attention`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from possam.deformable_attention.build_cuda import load

NAME = "cuda"
MAX_LEVELS = 8
"""MAX_LEVELS of the source."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class _Shape(ctypes.Structure):
    """`Shape` of the source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("B", "S", "N")),
        *((name, ctypes.c_int32) for name in ("H", "D", "L", "P", "device")),
        ("sizes", ctypes.c_int32 * (2 * MAX_LEVELS)),
    )


def fits(value: Tensor, locations: Tensor) -> bool:
    """Whether it can do this. Within an image it counts in 32 bits; the grid of blocks has room for 65,535 images."""
    small = math.prod(value.shape[1:]) < 2**31 and math.prod(locations.shape[1:]) < 2**31
    return value.dtype in DTYPES and small and len(value) < 2**16 and locations.shape[-3] <= MAX_LEVELS


def forward(value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor) -> Tensor:
    """The result, in the dtype of `value`."""
    sources = _sources(value, locations, weights)
    output = sources[0].new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])
    _run("forward", sizes, sources, [output])
    return output.to(value.dtype)


def backward(
    grad: Tensor, value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, each in its dtype, for that of the result."""
    sources = _sources(value, locations, weights)
    precise = sources[1].dtype
    targets = [torch.zeros_like(sources[0], dtype=precise), *(torch.empty_like(x) for x in sources[1:])]
    _run("backward", sizes, [grad.to(sources[0].dtype).contiguous(), *sources], targets)
    by_value, by_locations, by_weights = targets
    return by_value.to(value.dtype), by_locations.to(locations.dtype), by_weights.to(weights.dtype)


def _sources(value: Tensor, locations: Tensor, weights: Tensor) -> list[Tensor]:
    """All contiguous; the last two in the precision of the sums, the first too where that is float64."""
    precise = torch.promote_types(torch.promote_types(value.dtype, locations.dtype), torch.float32)
    value = value.double() if precise == torch.float64 else value
    return [value.contiguous(), locations.to(precise).contiguous(), weights.to(precise).contiguous()]


def _run(direction: str, sizes: Sequence[int], sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Calls `direction` of the source. Sources end with value, locations, weights."""
    value, locations = sources[-3], sources[-2]
    batch, tokens, heads, depth = value.shape
    _, queries, _, levels, points, _ = locations.shape
    if batch * queries * heads == 0:
        return
    device = value.device
    shape = _Shape(batch, tokens, queries, heads, depth, levels, points, device.index or 0)
    shape.sizes[: len(sizes)] = sizes
    library = load(device)
    function = getattr(library, f"{direction}_{str(value.dtype).removeprefix('torch.')}")
    pointers: list[Any] = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*sources, *targets)]
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    with torch.cuda.device_of(value):
        error = function(*pointers, ctypes.byref(shape), ctypes.c_void_p(stream))
    if error:
        library.message.restype = ctypes.c_char_p
        raise RuntimeError(f"deformable attention: CUDA says: {library.message(error).decode()}")
