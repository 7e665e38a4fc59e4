"""Runs the Triton kernels on a CPU, in Triton's interpreter, beside PyTorch's: prints the largest errors as JSON.

A program of its own, since the interpreter is chosen before Triton is imported; test_deformable_attention_triton.py
starts it and judges.
"""

from __future__ import annotations

import json
import os

os.environ |= {"TRITON_INTERPRET": "1", "DETECTRON2_SAM_KERNELS": "pytorch"}

import torch

from possam.deformable_attention import triton as kernel
from possam.deformable_attention.operator import deformable_attention

CASES = {  # dtypes of value and of locations, map sizes, heads, points, channels
    "float64": (torch.float64, torch.float64, [(7, 3), (1, 9)], 2, 2, 16),
    "float32": (torch.float32, torch.float32, [(2, 3), (4, 5)], 2, 2, 32),
    "float16 value": (torch.float16, torch.float32, [(4, 5)], 2, 2, 32),
    "bfloat16 value": (torch.bfloat16, torch.float32, [(4, 5)], 2, 2, 32),
    "float32 value, float64 locations": (torch.float32, torch.float64, [(4, 5)], 1, 2, 8),
    "one cell, odd widths": (torch.float32, torch.float32, [(1, 1), (5, 3)], 3, 3, 7),
}
QUERIES = 37  # no multiple of a block


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest error as a share of the largest number; infinite where they are of another kind."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return float("inf")
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


def compare(dtype, precise, shapes, heads, points, depth) -> list[float]:
    """Errors of the result and of the gradients of value, locations and weights; a third of the samples lie outside."""
    value = torch.randn(2, sum(h * w for h, w in shapes), heads, depth, dtype=torch.float64).to(dtype)
    rows = (2, QUERIES, heads, len(shapes), points)
    cells = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float64)[:, None]
    places = (torch.rand(*rows, 2, dtype=torch.float64) * 1.5 - 0.25) * cells - 0.5
    places = places.floor() + 0.1 + 0.8 * (places - places.floor())  # off the kinks
    arguments = [value, ((places + 0.5) / cells).to(precise), torch.rand(*rows, dtype=precise)]
    value, locations, weights = arguments = [x.requires_grad_() for x in arguments]
    result = deformable_attention(value, shapes, locations, weights)
    grad = torch.linspace(-1, 1, result.numel()).view(result.shape).to(result.dtype)
    expected = [result, *torch.autograd.grad(result, arguments, grad)]
    sizes = [size for pair in shapes for size in pair]
    with torch.no_grad():
        found = [kernel.forward(value, sizes, locations, weights)]
        found += kernel.backward(grad, value, sizes, locations, weights)
    return [difference(ours, theirs) for ours, theirs in zip(found, expected, strict=True)]


def wild() -> dict[str, bool]:
    """Locations that are far away, infinite or no numbers."""
    value, weights = torch.randn(1, 6, 1, 4), torch.rand(1, 5, 1, 1, 2)
    locations = torch.full((1, 5, 1, 1, 2, 2), 0.5)
    for query, place in enumerate((1e30, -1e30, torch.nan, torch.inf)):
        locations[0, query] = place
    grad = torch.ones(1, 5, 4)
    result = kernel.forward(value, [2, 3], locations, weights)
    by_value, _, by_weights = kernel.backward(grad, value, [2, 3], locations, weights)
    return {
        "far away adds nothing": not result[0, :2].any() and not by_weights[0, :2].any(),
        "others are untouched": bool(result[0, 4].isfinite().all() and by_value.isfinite().all()),
    }


def empty() -> dict[str, bool]:
    """No queries, no images."""
    found = {}
    for batch, queries in ((2, 0), (0, 3)):
        value, rows = torch.randn(batch, 6, 1, 4), (batch, queries, 1, 1, 2)
        arguments = (value, [2, 3], torch.rand(*rows, 2), torch.rand(rows))
        result = kernel.forward(*arguments)
        by_value, by_locations, _ = kernel.backward(torch.ones_like(result), *arguments)
        shapes = result.shape == (batch, queries, 4) and by_locations.shape == (*rows, 2)
        found[f"{batch} images, {queries} queries"] = shapes and not by_value.any().item()
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    errors = {name: compare(*case) for name, case in CASES.items()}
    print(json.dumps({"errors": errors, "edges": wild() | empty()}))
