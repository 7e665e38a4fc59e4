"""The GPU kernels on a GPU, where there is one: equal to PyTorch's, and used as training uses them."""

from __future__ import annotations

import pytest
import torch

from possam.deformable_attention import build_cuda
from possam.deformable_attention.operator import (
    MultiScaleDeformableAttention,
    deformable_attention,
    kernel_in_use,
)
from sam_common.io.native import KERNELS_VARIABLE
from sam_common.layers.activation_checkpointing import checkpoint_activations

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU: its kernels are NOT tested")

SHAPES = [(7, 5), (13, 11), (1, 3)]  # 181 tokens


@pytest.fixture(params=["triton", "cuda"])
def kernel(request, monkeypatch, tmp_path_factory):
    """The kernel that runs; the CUDA build is made for this machine."""
    monkeypatch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path_factory.getbasetemp() / "gpu_cache"))
    monkeypatch.setenv(KERNELS_VARIABLE, "triton" if request.param == "triton" else "")
    capability = torch.cuda.get_device_capability()
    if request.param == "cuda" and not build_cuda.built_file(capability).is_file() and build_cuda.main([]) != 0:
        pytest.skip("there is no nvcc: the CUDA kernel is NOT tested")
    used = kernel_in_use(torch.device("cuda"))
    if not used.startswith(request.param):
        pytest.skip(f"the {request.param} kernel is NOT tested: {used}")
    return request.param


def with_gradients(value, locations, weights):
    arguments = [x.detach().requires_grad_() for x in (value, locations, weights)]
    result = deformable_attention(arguments[0], SHAPES, *arguments[1:])
    grad = torch.linspace(-1, 1, result.numel(), device="cuda").view(result.shape).to(result.dtype)
    return result.detach(), *torch.autograd.grad(result, arguments, grad)


def inputs(dtype, heads=8, depth=32, points=4, queries=181):
    """Off the kinks, a quarter of the samples beyond the maps."""
    precise = torch.promote_types(dtype, torch.float32)
    cells = torch.tensor([(w, h) for h, w in SHAPES], dtype=torch.float64, device="cuda")[:, None]
    rows = (2, queries, heads, len(SHAPES), points)
    places = (torch.rand(*rows, 2, dtype=torch.float64, device="cuda") * 1.3 - 0.15) * cells - 0.5
    places = places.floor() + 0.1 + 0.8 * (places - places.floor())
    value = torch.randn(2, sum(h * w for h, w in SHAPES), heads, depth, device="cuda", dtype=torch.float64)
    return value.to(dtype), ((places + 0.5) / cells).to(precise), torch.rand(rows, dtype=precise, device="cuda")


TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("heads", "depth"), [(8, 32), (3, 7), (2, 40), (1, 160)])
def test_equals_pytorch(kernel, monkeypatch, dtype, heads, depth):
    """Equality of the result and of all three gradients, also of odd widths and more packs than lanes."""
    arguments = inputs(dtype, heads, depth)
    found = with_gradients(*arguments)
    monkeypatch.setenv(KERNELS_VARIABLE, "pytorch")
    expected = with_gradients(*(x.to(torch.promote_types(dtype, torch.float32)) for x in arguments))
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.dtype == (dtype if index < 2 else theirs.dtype)
        tolerance = TOLERANCES[dtype] * theirs.abs().max().item()
        torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=0, atol=tolerance)


def test_as_training_uses_it(kernel):
    """Equality under checkpointing and torch.compile; under autocast the value is bfloat16 and the result is close."""
    attention = MultiScaleDeformableAttention(64, num_levels=3, num_heads=2, num_points=4).cuda()
    torch.nn.init.normal_(attention.offsets.weight, std=0.1)
    queries, memory = torch.randn(2, 181, 64, device="cuda"), torch.randn(2, 181, 64, device="cuda")
    points = torch.rand(181, 2, device="cuda")

    def run(module):
        attention.zero_grad()
        result = module(queries, points, memory, SHAPES)
        result.float().square().mean().backward()
        return [result.detach(), *(parameter.grad.clone() for parameter in attention.parameters())]

    expected = run(attention)
    for ours, theirs in zip(run(torch.compile(attention, backend="aot_eager", fullgraph=True)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    with torch.autocast("cuda", torch.bfloat16):
        low = run(attention)
    assert low[0].dtype == torch.bfloat16
    torch.testing.assert_close(low[0].float(), expected[0], rtol=0.1, atol=0.1)
    checkpoint_activations([attention])
    for ours, theirs in zip(run(attention), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_runs_in_the_stream_that_is_current(kernel):
    """In a stream of its own it waits for what went before there, as every operator does."""
    arguments = inputs(torch.float32)
    expected = deformable_attention(arguments[0] * 2, SHAPES, *arguments[1:])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        found = deformable_attention(arguments[0] * 2, SHAPES, *arguments[1:])
    stream.synchronize()
    torch.testing.assert_close(found, expected)
