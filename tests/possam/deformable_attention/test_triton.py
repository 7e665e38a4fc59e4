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
ROOT = Path(__file__).resolve().parents[3]
EDGES = ("far away adds nothing", "others are untouched", "2 images, 0 queries", "0 images, 3 queries")


@pytest.fixture(scope="module")
def interpreted():
    """What triton_cases.py found; a process of its own, because the interpreter is chosen when Triton is imported."""
    script = ROOT / "tests" / "support" / "triton_cases.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
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


class Compiler:
    """In place of a kernel: compiles what would be launched, and keeps the assembly."""

    def __init__(self, kernel):
        self.kernel, self.assembly = kernel, ""

    def __getitem__(self, grid):
        def compile(*arguments, **options):
            self.assembly = self.kernel.warmup(*arguments, grid=grid, **options).asm["ptx"]

        return compile


class Driver:
    """What Triton asks about the GPU, answered without one."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return self.capability  # each has its own code

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """A function (capability, dtype of the value, map sizes, heads, channels) -> assembly of both kernels."""
    from possam.deformable_attention import triton as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    forward, backward = Compiler(kernels._forward), Compiler(kernels._backward)
    monkeypatch.setattr(kernels, "_forward", forward)
    monkeypatch.setattr(kernels, "_backward", backward)

    def run(capability, dtype, shapes, heads, depth):
        triton.runtime.driver.set_active(Driver(capability))
        rows = (1, 3, heads, len(shapes), 1)
        value = torch.empty(1, sum(h * w for h, w in shapes), heads, depth, dtype=dtype)
        arguments = (value, [size for pair in shapes for size in pair], torch.empty(*rows, 2), torch.empty(rows))
        kernels.backward(kernels.forward(*arguments), *arguments)
        return forward.assembly, backward.assembly

    yield run
    triton.runtime.driver.set_active(None)  # found anew when asked for


@pytest.mark.parametrize("capability", [80, 90])
def test_makes_code_that_reads_and_adds_16_bytes_at_once(compiled, capability):
    """What a launch compiles in bfloat16: a corner is one load, and on 9.0 four sums are one operation."""
    forward, backward = compiled(capability, torch.bfloat16, [(16, 16)], 8, 32)
    assert len(re.findall(r"ld\.global\S*\.v4\.b32", forward)) == 4 and "atom" not in forward
    sums = re.findall(r"(?:red|atom)\.global\S*\.add\S*", backward)
    assert len(sums) == (4 if capability == 90 else 16)
    assert all((".v4.f32" in found) == (capability == 90) for found in sums)


@pytest.mark.parametrize(("dtype", "heads", "depth"), [(torch.float32, 1, 1), (torch.float64, 3, 160)])
def test_makes_code_of_odd_sizes(compiled, dtype, heads, depth):
    """Edge: Triton treats arguments that are 1 in its own way; a head that is wider than a block."""
    assert all(compiled(90, dtype, [(1, 1), (2, 1)], heads, depth))


def test_what_it_fits():
    """Derived by hand: floating point, and up to 64 samples of a query and head, which are written out one by one."""
    from possam.deformable_attention.triton import fits

    def asked(dtype=torch.bfloat16, levels=3, points=4):
        return fits(torch.empty(1, 6, 1, 4, dtype=dtype), torch.empty(1, 2, 1, levels, points, 2))

    assert asked() and asked(levels=4, points=16)
    assert not asked(levels=5, points=16) and not asked(torch.float8_e5m2)
