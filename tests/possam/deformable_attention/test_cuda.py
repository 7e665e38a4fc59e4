"""The CUDA C++ kernel without a GPU: its arithmetic compiled for the CPU, nvcc's opinion, and who is chosen when."""

from __future__ import annotations

import ctypes
import subprocess
import types

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from possam.deformable_attention import build_cuda
from possam.deformable_attention import cuda as deformable_attention_cuda
from possam.deformable_attention import operator as attention
from sam_common.io.native import KERNELS_VARIABLE, NoKernel, find_compiler

GPU = torch.device("cuda", 0)


def found(find):
    """What a search finds, or ""."""
    try:
        return find()
    except NoKernel:
        return ""


def see_a_gpu(monkeypatch):
    """From here on PyTorch claims to see one of compute capability 9.0."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


COMPILER, NVCC = found(find_compiler), found(build_cuda.find_nvcc)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(KERNELS_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    """The source as a C++ compiler reads it: the same functions, one lane after the other."""
    path = tmp_path_factory.mktemp("host") / "host.so"
    flags = ["-x", "c++", "-std=c++17", "-O1", "-shared", "-fPIC"]
    subprocess.run([COMPILER, *flags, build_cuda.SOURCE, "-o", path], check=True, capture_output=True)
    return ctypes.CDLL(str(path))


CASES = {  # dtype of value, map sizes, heads, points, channels
    "float64": (torch.float64, [(7, 3), (1, 9)], 2, 4, 16),
    "float32": (torch.float32, [(2, 3), (4, 5)], 2, 4, 32),
    "three packs, two lanes": (torch.float64, [(3, 4)], 1, 2, 6),
    "one cell, odd widths": (torch.float32, [(1, 1), (5, 3), (2, 1)], 3, 5, 7),
    "as many maps as it takes": (torch.float64, [(2, 2)] * 8, 1, 1, 2),
}


@pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler: the CUDA kernel's arithmetic is NOT tested")
@pytest.mark.parametrize(("dtype", "shapes", "heads", "points", "depth"), CASES.values(), ids=CASES)
def test_arithmetic_equals_pytorch(on_cpu, monkeypatch, dtype, shapes, heads, points, depth):
    """Equality of the result and of all three gradients with PyTorch's kernel, off the kinks, a third of it outside."""
    monkeypatch.setenv(KERNELS_VARIABLE, "pytorch")
    monkeypatch.setattr(deformable_attention_cuda, "load", lambda device: on_cpu)
    rows = (2, 37, heads, len(shapes), points)
    cells = torch.tensor([(w, h) for h, w in shapes], dtype=dtype)[:, None]
    places = (torch.rand(*rows, 2, dtype=dtype) * 1.5 - 0.25) * cells - 0.5
    places = places.floor() + 0.1 + 0.8 * (places - places.floor())
    value = torch.randn(2, sum(h * w for h, w in shapes), heads, depth, dtype=dtype)
    arguments = [x.requires_grad_() for x in (value, (places + 0.5) / cells, torch.rand(rows, dtype=dtype))]
    result = attention.deformable_attention(arguments[0], shapes, *arguments[1:])
    grad = torch.linspace(-1, 1, result.numel(), dtype=dtype).view(result.shape)
    expected = [result, *torch.autograd.grad(result, arguments, grad)]
    sizes = [size for pair in shapes for size in pair]
    value, locations, weights = (x.detach() for x in arguments)
    ours = [deformable_attention_cuda.forward(value, sizes, locations, weights)]
    ours += deformable_attention_cuda.backward(grad, value, sizes, locations, weights)
    for mine, theirs in zip(ours, expected, strict=True):
        tolerance = (1e-12 if dtype == torch.float64 else 1e-5) * theirs.abs().max().item()
        torch.testing.assert_close(mine, theirs.detach(), rtol=0, atol=tolerance)


@pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler: the CUDA kernel's arithmetic is NOT tested")
def test_wild_locations_read_nothing_beyond_the_map(on_cpu, monkeypatch):
    """Edge: samples far away add nothing; NaN and infinite ones touch their own query alone."""
    monkeypatch.setattr(deformable_attention_cuda, "load", lambda device: on_cpu)
    value, weights = torch.randn(1, 6, 1, 4), torch.rand(1, 5, 1, 1, 2)
    locations = torch.full((1, 5, 1, 1, 2, 2), 0.5)
    for query, place in enumerate((1e30, -1e30, torch.nan, torch.inf)):
        locations[0, query] = place
    result = deformable_attention_cuda.forward(value, [2, 3], locations, weights)
    by_value, _, by_weights = deformable_attention_cuda.backward(torch.ones(1, 5, 4), value, [2, 3], locations, weights)
    assert not result[0, :2].any() and not by_weights[0, :2].any()
    assert result[0, 4].isfinite().all() and by_value.isfinite().all()


@pytest.mark.skipif(not NVCC, reason="there is no nvcc: that it takes the CUDA kernel is NOT tested")
def test_built_and_then_loaded_without_nvcc(monkeypatch, capsys):
    """The command prints a file that has every function; from then on it is what such a GPU runs, nvcc or not."""
    assert build_cuda.main(["--arch", "9.0"]) == 0
    path = build_cuda.built_file((9, 0))
    assert capsys.readouterr().out == f"{path}\n" and list(path.parent.iterdir()) == [path]
    monkeypatch.setenv("PATH", "")
    see_a_gpu(monkeypatch)
    library = build_cuda.load(GPU)
    for dtype in deformable_attention_cuda.DTYPES:
        assert all(getattr(library, f"{way}_{str(dtype)[6:]}") for way in ("forward", "backward"))
    assert attention.kernel_in_use(GPU) == "cuda"
    monkeypatch.setenv(KERNELS_VARIABLE, "triton")
    assert not attention.kernel_in_use(GPU).startswith("cuda")


def test_without_nvcc_or_a_gpu_it_says_so_in_a_line(tmp_path, monkeypatch, capsys):
    """Error: no nvcc; a GPU that PyTorch does not see and nobody names; something that is no nvcc. Nothing is left."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert build_cuda.main([]) == 2
    assert "--arch 9.0" in capsys.readouterr().err
    monkeypatch.setattr(build_cuda, "find_nvcc", lambda: "/bin/false")
    assert build_cuda.main(["--arch", "9.0"]) == 2
    assert capsys.readouterr().err.startswith("error: /bin/false failed")
    assert not list((tmp_path / "cache" / "kernels").iterdir())
    monkeypatch.undo()
    for name, value in (("PATH", ""), ("CUDA_HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(build_cuda, "_places", lambda: ["", str(tmp_path)])
    assert build_cuda.main(["--arch", "9.0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no nvcc") and "nvidia-cuda-nvcc" in error and error.count("\n") == 1


def test_who_is_chosen(monkeypatch):
    """Case table: without a build Triton; PyTorch's where there is no Triton or GPU, or determinism is asked for."""
    if not torch.cuda.is_available():
        assert attention.kernel_in_use(GPU) == "pytorch (PyTorch sees no GPU)"
    see_a_gpu(monkeypatch)
    assert "no CUDA build" in build_cuda.why_no_build(GPU) and build_cuda.COMMAND in build_cuda.why_no_build(GPU)
    with monkeypatch.context() as patch:
        patch.setattr(attention, "_why_not_triton", lambda: "Triton is not installed")
        assert attention.kernel_in_use(GPU) == "pytorch (Triton is not installed)"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
        assert attention.kernel_in_use(GPU).startswith("pytorch (torch.use_deterministic")
    with monkeypatch.context() as patch:
        patch.setenv(KERNELS_VARIABLE, "pytorch")
        assert attention.kernel_in_use(GPU).startswith("pytorch (DETECTRON2")
    assert attention.kernel_in_use(torch.device("mps")).startswith("pytorch")
    with monkeypatch.context() as patch:
        patch.setattr(attention, "_why_not_triton", lambda: "")
        pytest.importorskip("triton", reason="Triton is not installed: that it is chosen is NOT tested")
        assert attention.kernel_in_use(GPU) == f"triton ({build_cuda.why_no_build(GPU)})"
        patch.setenv(KERNELS_VARIABLE, "triton")
        assert attention.kernel_in_use(GPU) == "triton (DETECTRON2_SAM_KERNELS is triton)"


@pytest.mark.parametrize(("version", "usable"), [("3.2.0", False), ("3.3.0+git1", True), ("3.10.1", True)])
def test_old_triton(version, usable, monkeypatch):
    """Case table: from 3.3 on; 3.10 is newer."""
    module = types.SimpleNamespace(__version__=version)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: module)
    monkeypatch.setattr(attention.importlib, "import_module", lambda name: module)
    assert (attention._why_not_triton.__wrapped__() == "") is usable


def test_traced_for_a_gpu(monkeypatch):
    """Shapes, dtypes and device of the result and the gradients, with tensors that only claim to be on a GPU."""
    monkeypatch.setattr(attention, "_compiled_kernel", lambda device: deformable_attention_cuda)
    with FakeTensorMode():
        value = torch.empty(2, 26, 2, 4, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        locations = torch.empty(2, 5, 2, 2, 3, 2, device="cuda", requires_grad=True)
        weights = torch.empty(2, 5, 2, 2, 3, device="cuda", requires_grad=True)
        result = attention.deformable_attention(value, [(2, 3), (4, 5)], locations, weights)
        assert result.grad_fn.name() == "_CompiledBackward"
        backward = torch.ops.detectron2_sam.compiled_deformable_attention_backward
        gradients = backward(torch.empty_like(result), value, [2, 3, 4, 5], locations, weights)
    assert result.shape == (2, 5, 8) and (result.dtype, result.device.type) == (torch.bfloat16, "cuda")
    for gradient, x in zip(gradients, (value, locations, weights), strict=True):
        assert (gradient.shape, gradient.dtype, gradient.device) == (x.shape, x.dtype, x.device)
