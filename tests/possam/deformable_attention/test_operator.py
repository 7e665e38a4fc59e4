"""Multi-scale deformable attention: the operator against loops, its gradient, its registration; the module's start.

Every test runs once with each kernel; where there is no compiler those of `c++` are skipped.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.library import opcheck

from possam.deformable_attention.operator import (
    MultiScaleDeformableAttention,
    _check,
    deformable_attention,
    kernel_in_use,
)
from sam_common.io.native import KERNELS_VARIABLE
from sam_common.layers.activation_checkpointing import checkpoint_activations

SHAPES = [(2, 3), (4, 5)]  # 6 + 20 = 26 tokens
OPERATOR = torch.ops.detectron2_sam.deformable_attention.default

CPU = torch.device("cpu")


@pytest.fixture(params=["pytorch", "c++"], autouse=True)
def kernel(request, monkeypatch):
    """The kernel that runs."""
    monkeypatch.setenv(KERNELS_VARIABLE, "pytorch" if request.param == "pytorch" else "")
    used = kernel_in_use(CPU)
    if request.param == "c++" and used != "c++":
        pytest.skip(f"the C++ kernel is NOT tested: {used}")
    assert used.startswith(request.param)
    return request.param


ONLY_COMPILED = pytest.mark.parametrize("kernel", ["c++"], indirect=True)
"""For tests that compare the C++ kernel with PyTorch's, or look at it alone."""


def inputs(dtype=torch.float64, batch=2, queries=5, heads=2, depth=3, points=4):
    """Random value, locations (a fifth of them beyond the map) and weights."""
    value = torch.randn(batch, sum(h * w for h, w in SHAPES), heads, depth, dtype=dtype)
    locations = torch.rand(batch, queries, heads, len(SHAPES), points, 2, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(batch, queries, heads, len(SHAPES) * points, dtype=dtype).softmax(-1)
    return value, locations, weights.view(batch, queries, heads, len(SHAPES), points)


def bilinear(grid, x, y):
    """Value of `grid` [h, w, D] at x, y in cells, cell centres at integers, zero beyond the grid."""
    total = torch.zeros(grid.shape[-1], dtype=grid.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * grid[row, column]
    return total


def by_loops(value, shapes, locations, weights):
    """The definition, one sample at a time."""
    batch, queries, heads, _, points, _ = locations.shape
    output = torch.zeros(batch, queries, heads, value.shape[-1], dtype=value.dtype)
    for b, n, m in ((b, n, m) for b in range(batch) for n in range(queries) for m in range(heads)):
        start = 0
        for level, (h, w) in enumerate(shapes):
            grid = value[b, start : start + h * w, m].view(h, w, -1)
            start += h * w
            for p in range(points):
                x, y = locations[b, n, m, level, p].tolist()
                output[b, n, m] += weights[b, n, m, level, p] * bilinear(grid, x * w - 0.5, y * h - 0.5)
    return output.flatten(2)


def test_equals_the_definition():
    """Equal to independent loops: level order, xy order, half-integer centres, zeros beyond the edge, head order."""
    value, locations, weights = inputs()
    expected = by_loops(value, SHAPES, locations, weights)
    torch.testing.assert_close(deformable_attention(value, SHAPES, locations, weights), expected)


def test_by_hand():
    """One map [[1, 2], [3, 4]]: its middle is 2.5, the first cell's centre 1, its outer corner a quarter of 1."""
    value = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    locations = torch.tensor([[0.5, 0.5], [0.25, 0.25], [0.0, 0.0]]).view(1, 3, 1, 1, 1, 2)
    result = deformable_attention(value, [(2, 2)], locations, torch.ones(1, 3, 1, 1, 1))
    torch.testing.assert_close(result.flatten(), torch.tensor([2.5, 1.0, 0.25]))


def test_spatial_shapes_as_tensor():
    """A [L, 2] tensor means the same as pairs of numbers."""
    value, locations, weights = inputs()
    pairs = deformable_attention(value, SHAPES, locations, weights)
    assert torch.equal(deformable_attention(value, torch.tensor(SHAPES), locations, weights), pairs)


def test_gradients():
    """All three gradients equal finite differences; locations keep 0.2 of a cell off the kinks."""
    value, locations, weights = inputs(batch=1, queries=3, depth=2, points=2)
    cells = torch.tensor([(w, h) for h, w in SHAPES], dtype=torch.float64)[:, None]
    position = locations * cells - 0.5
    position = position.floor() + 0.2 + 0.6 * (position - position.floor())
    locations = (position + 0.5) / cells
    arguments = [x.requires_grad_() for x in (value, locations, weights)]
    assert torch.autograd.gradcheck(lambda v, l, w: deformable_attention(v, SHAPES, l, w), arguments)  # noqa: E741


def test_operator_registration():
    """Schema, autograd registration, fake kernel and tracing hold PyTorch's own checks."""
    value, locations, weights = (x.requires_grad_() for x in inputs(torch.float32))
    results = opcheck(OPERATOR, (value, [size for shape in SHAPES for size in shape], locations, weights))
    assert set(results.values()) == {"SUCCESS"}


@ONLY_COMPILED
def test_compiled_operators_registration():
    """The same for the two operators behind it, below autograd."""
    value, locations, weights = inputs(torch.float32)
    arguments = (value, [size for shape in SHAPES for size in shape], locations, weights)
    operators = torch.ops.detectron2_sam
    assert set(opcheck(operators.compiled_deformable_attention.default, arguments).values()) == {"SUCCESS"}
    backward = operators.compiled_deformable_attention_backward.default
    assert set(opcheck(backward, (torch.randn(2, 5, 6), *arguments)).values()) == {"SUCCESS"}


def with_gradients(value, shapes, locations, weights):
    """The result and the gradients of value, locations and weights, for a fixed gradient of the result."""
    arguments = [x.detach().clone().requires_grad_() for x in (value, locations, weights)]
    result = deformable_attention(arguments[0], shapes, *arguments[1:])
    grad = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return result.detach(), *torch.autograd.grad(result, arguments, grad)


CASES = {
    "float32": (torch.float32, [(2, 3), (4, 5)], 2, 4, 32),
    "bfloat16": (torch.bfloat16, [(2, 3), (4, 5)], 2, 4, 32),
    "float64": (torch.float64, [(7, 3), (1, 9)], 1, 4, 16),
    "one cell, odd depth and points": (torch.float32, [(1, 1), (5, 3), (2, 1)], 3, 5, 7),
    "many points": (torch.float32, [(4, 4)], 1, 64, 8),
    "more points than a block": (torch.float32, [(4, 4)], 1, 65, 8),
}


@ONLY_COMPILED
@pytest.mark.parametrize(("dtype", "shapes", "heads", "points", "depth"), CASES.values(), ids=CASES)
def test_compiled_equals_pytorch(monkeypatch, dtype, shapes, heads, points, depth):
    """Equality of the result and all gradients to rounding; a third of the samples lie beyond the maps, 37 queries."""
    batch, queries, levels, precise = 2, 37, len(shapes), torch.promote_types(dtype, torch.float32)
    value = torch.randn(batch, sum(h * w for h, w in shapes), heads, depth).to(dtype)
    locations = torch.rand(batch, queries, heads, levels, points, 2, dtype=precise) * 1.5 - 0.25
    weights = torch.rand(batch, queries, heads, levels, points, dtype=precise)
    found = with_gradients(value, shapes, locations, weights)
    monkeypatch.setenv(KERNELS_VARIABLE, "pytorch")
    expected = with_gradients(value, shapes, locations, weights)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        scale = theirs.abs().max().item()
        tolerance = {torch.bfloat16: 1e-2, torch.float32: 1e-5, torch.float64: 1e-12}[ours.dtype] * scale
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@ONLY_COMPILED
def test_number_of_threads_changes_nothing():
    """Invariant: one thread and three give the same bits, forward and backward."""
    value, locations, weights = inputs(torch.float32, queries=50)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(with_gradients(value, SHAPES, locations, weights))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


@ONLY_COMPILED
def test_wild_locations_read_nothing_beyond_the_map():
    """Edge: samples far away add nothing; infinite ones and NaN touch their own query alone."""
    value, locations, weights = inputs(torch.float32, batch=1, queries=4)
    locations[0, 0] = 1e30
    locations[0, 1] = -1e30
    locations[0, 2] = torch.nan
    result, by_value, _, by_weights = with_gradients(value, SHAPES, locations, weights)
    assert (result[0, :2] == 0).all() and result[0, 3].isfinite().all() and by_value.isfinite().all()
    assert (by_weights[0, :2] == 0).all() and by_weights[0, 3].abs().sum() > 0


def test_no_queries_and_no_images():
    """Edge: nothing in, nothing out, and the value's gradient is zero."""
    for batch, queries in ((2, 0), (0, 3)):
        value, locations, weights = inputs(torch.float32, batch=batch, queries=queries)
        result, by_value, by_locations, _ = with_gradients(value, SHAPES, locations, weights)
        assert result.shape == (batch, queries, 6) and by_locations.shape == locations.shape
        assert by_value.shape == value.shape and not by_value.any()


def test_shapes_that_do_not_belong_together():
    """Error: sizes that do not add up to the tokens are refused before anything is read."""
    value, locations, weights = inputs(torch.float32)
    with pytest.raises((ValueError, RuntimeError), match="belong together|split"):
        deformable_attention(value, [(2, 3), (4, 6)], locations, weights)


def test_devices_that_do_not_belong_together():
    """Error: a pointer of another device is not followed."""
    value, locations, weights = inputs(torch.float32)
    with pytest.raises(ValueError, match="several devices: cpu, meta"):
        _check(value, [size for shape in SHAPES for size in shape], locations, weights.to("meta"))


def module_gradients(attention, run, dtype=torch.float32):
    """The result and the parameters' gradients of a module called by `run`."""
    generator = torch.Generator().manual_seed(0)
    queries, memory = (torch.randn(2, n, 8, generator=generator, dtype=dtype) for n in (7, 26))
    attention.zero_grad()
    result = run(queries, torch.rand(7, 2, generator=generator), memory, SHAPES)
    result.float().square().sum().backward()
    return [result.detach(), *(parameter.grad.clone() for parameter in attention.parameters())]


def test_compile_checkpointing_and_autocast():
    """Equality: traced by torch.compile and recomputed in the backward pass it is the same; bf16 is close to it."""
    attention = MultiScaleDeformableAttention(8, num_levels=2, num_heads=2, num_points=3)
    torch.nn.init.normal_(attention.offsets.weight)
    expected = module_gradients(attention, attention)
    traced = module_gradients(attention, torch.compile(attention, backend="aot_eager", fullgraph=True))
    for ours, theirs in zip(traced, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.autocast("cpu", torch.bfloat16):
        low = module_gradients(attention, attention)
    assert low[0].dtype == torch.bfloat16
    torch.testing.assert_close(low[0].float(), expected[0], rtol=0.1, atol=0.1)
    checkpoint_activations([attention])
    for ours, theirs in zip(module_gradients(attention, attention), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_inference_mode_equals_training():
    """The kernel below autograd is the same computation as the differentiable one."""
    arguments = inputs()
    expected = deformable_attention(arguments[0].requires_grad_(), SHAPES, *arguments[1:])
    with torch.inference_mode():
        result = deformable_attention(arguments[0], SHAPES, *arguments[1:])
    assert torch.equal(result, expected)


def test_half_precision_value():
    """A bfloat16 value (autocast) is sampled in the locations' float32; only the result is rounded."""
    value, locations, weights = inputs(torch.float32)
    value = value.bfloat16()
    expected = deformable_attention(value.float(), SHAPES, locations, weights)
    assert torch.equal(deformable_attention(value, SHAPES, locations, weights), expected.bfloat16())


def test_module_starts_in_rings():
    """At first, head m looks 1, 2, … cells from the reference point, in its own direction, with equal weights.

    A map whose value is x (in cells) then yields, for heads 0 (east) and 2 (west) of four, ± the mean step.
    """
    attention = MultiScaleDeformableAttention(4, num_levels=1, num_heads=4, num_points=2)
    torch.nn.init.eye_(attention.value_projection.weight)
    torch.nn.init.eye_(attention.output_projection.weight)
    x = torch.arange(9.0).repeat(9)  # 9×9 map
    memory = x[None, :, None].expand(1, -1, 4)
    centre = torch.tensor([[0.5, 0.5]])
    result = attention(torch.zeros(1, 1, 4), centre, memory, [(9, 9)])
    torch.testing.assert_close(result.flatten(), torch.tensor([4 + 1.5, 4.0, 4 - 1.5, 4.0]))


def test_module_offsets_are_cells_of_each_map():
    """The module scales x offsets by the map's width and y offsets by its height, map by map."""
    attention = MultiScaleDeformableAttention(8, num_levels=2, num_heads=2, num_points=3)
    torch.nn.init.normal_(attention.offsets.weight)
    torch.nn.init.normal_(attention.weights.weight)
    queries, memory, reference = torch.randn(2, 7, 8), torch.randn(2, 26, 8), torch.rand(7, 2)
    cells = torch.tensor([(w, h) for h, w in SHAPES])
    offsets = attention.offsets(queries).view(2, 7, 2, 2, 3, 2)
    locations = reference[None, :, None, None, None] + offsets / cells[:, None]
    weights = attention.weights(queries).view(2, 7, 2, 6).softmax(-1).view(2, 7, 2, 2, 3)
    value = attention.value_projection(memory).view(2, 26, 2, 4)
    expected = attention.output_projection(by_loops(value.detach(), SHAPES, locations.detach(), weights.detach()))
    torch.testing.assert_close(attention(queries, reference, memory, SHAPES), expected, atol=1e-5, rtol=1e-4)
