"""The Triton kernels without a GPU: their results in Triton's interpreter, and the code made of them for a GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip(
    "triton", minversion="3.3", reason="Triton is not installed, or old: its kernels are NOT tested"
)

TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16 value": 2e-3, "bfloat16 value": 2e-2}
CASES = (*TOLERANCES, "float32 value, float64 locations", "one cell, odd widths")
EDGES = ("far away adds nothing", "others are untouched", "2 images, 0 queries", "0 images, 3 queries")


@pytest.fixture(scope="module")
def interpreted():
    """What triton_cases.py found; a process of its own, because the interpreter is chosen when Triton is imported."""
    script = Path(__file__).with_name("triton_cases.py")
    environment = os.environ | {"PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_equals_pytorch(interpreted, case):
    """Equality of the result and of all three gradients with PyTorch's kernel, off the kinks, a third of it outside."""
    assert max(interpreted["errors"][case]) < TOLERANCES.get(case, 1e-5)


@pytest.mark.parametrize("edge", EDGES)
def test_edges(interpreted, edge):
    """Edge: wild locations touch nothing beyond their own query; nothing in gives nothing out and no gradient."""
    assert interpreted["edges"][edge]


def ptx(kernel, capability, dtype):
    """What Triton makes of a kernel of one map and one point, 32 channels; needs no GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    tl = triton.language
    rows = 128 * 16 // (32 * (4 if "grad" in kernel.arg_names else 2))
    values = dict(HEADS=8, DEPTH=32, LEVELS=1, POINTS=1, SUM=tl.float32, Q=rows, C=32)
    numbers = {"sizes": ("i32", "i32"), "tokens": "i32", "queries": "i32"} | dict.fromkeys(values, "constexpr")
    low = ("grad", "value", "output")
    names = list(enumerate(kernel.arg_names))
    signature = {name: numbers.get(name, f"*{dtype if name in low else 'fp32'}") for _, name in names}
    constants = {(index,): values[name] for index, name in names if name in values}
    aligned = {(index,): [["tt.divisibility", 16]] for index, name in names if name not in numbers}
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": 4, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]


@pytest.mark.parametrize("capability", [80, 90])
def test_makes_code_that_reads_and_adds_16_bytes_at_once(capability, tmp_path, monkeypatch):
    """Triton's compiler takes both kernels, in bfloat16: a corner is one load, and on 9.0 four sums one operation."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from sam_common.layers import deformable_attention_triton as kernels

    forward = ptx(kernels._forward, capability, "bf16")
    assert len(re.findall(r"ld\.global\S*\.v4\.b32", forward)) == 4 and "atom" not in forward
    backward = ptx(kernels._backward, capability, "bf16")
    sums = re.findall(r"(?:red|atom)\.global\S*\.add\S*", backward)
    assert len(sums) == (4 if capability == 90 else 16)
    assert all((".v4.f32" in found) == (capability == 90) for found in sums)


def test_what_it_fits():
    """Derived by hand: floating point, and up to 64 samples of a query and head, which are written out one by one."""
    from sam_common.layers.deformable_attention_triton import fits

    def asked(dtype=torch.bfloat16, levels=3, points=4):
        return fits(torch.empty(1, 6, 1, 4, dtype=dtype), torch.empty(1, 2, 1, levels, points, 2))

    assert asked() and asked(levels=4, points=16)
    assert not asked(levels=5, points=16) and not asked(torch.float8_e5m2)
