"""Multi-scale deformable attention against Mask2Former's: JSON lines, equality first.

    python -m benchmarks.deformable_attention                          # CPU: the 1024² pixel decoder and the tiny one
    python -m benchmarks.deformable_attention --sizes 1024 --threads 2
    python -m benchmarks.deformable_attention --device cuda --dtype bf16        # untested: no GPU was at hand
    BENCH_PEERS=clones python -m benchmarks.deformable_attention       # with clones/Mask2Former, the peer itself

The peer is Mask2Former's PyTorch core, on a GPU its CUDA op where that is built and installed. Without a clone it is
our own kernel in PyTorch, which is faster than theirs. A peer computes in float32 whatever --dtype says, as it does in
its model: it has nothing lower. On a GPU each of our kernels that is there has its lines.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from benchmarks.side_by_side import Parser, import_file, in_turn, peer_file, tell
from detectron2_sam.commands.cli import run_tool
from possam.deformable_attention.operator import deformable_attention, kernel_in_use, sampled_attention
from sam_common.config import resolve_device
from sam_common.io.native import KERNELS_VARIABLE

SIZES = {  # batch, heads, channels per head, maps
    "1024": (1, 8, 32, ((32, 32), (64, 64), (128, 128))),
    "tiny": (4, 4, 16, ((8, 8), (16, 16), (32, 32))),
}
POINTS = 4
TARGETS = {"forward": 15.0, "forward + backward": 8.0}
GPU_TARGETS = {"forward": 3.0, "forward + backward": 3.0}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CUDA_OP = "MultiScaleDeformableAttention"  # what Mask2Former's make.sh installs
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def in_pytorch(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return sampled_attention(value, shapes.flatten().tolist(), locations, weights)


def find_peer(device: torch.device) -> tuple[str, Attention]:
    """Mask2Former's function where its clone is, else our kernel in PyTorch."""
    path = peer_file("Mask2Former", "mask2former/modeling/pixel_decoder/ops/functions/ms_deform_attn_func.py")
    if path is None:
        return "our kernel in PyTorch (BENCH_PEERS has no Mask2Former)", in_pytorch
    built = device.type == "cuda" and importlib.util.find_spec(CUDA_OP) is not None
    if not built:
        sys.modules.setdefault(CUDA_OP, ModuleType(CUDA_OP))  # which the file imports
    peer = import_file(path)
    if not built:
        return "Mask2Former's PyTorch core", peer.ms_deform_attn_core_pytorch

    def cuda_op(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        cells = shapes.prod(1)
        starts = cells.cumsum(0) - cells
        return peer.MSDeformAttnFunction.apply(value, shapes, starts, locations, weights, len(value))

    return "Mask2Former's CUDA op", cuda_op


def inputs(size: str, dtype: torch.dtype, device: torch.device, *, stride: int = 1) -> list[Tensor]:
    """Value, locations around every `stride`-th cell of all maps, at least 0.1 of a cell off the kinks, and weights.

    Only the value is of a dtype below float32, as under autocast.
    """
    batch, heads, depth, shapes = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    centres = [torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w) for h, w in shapes]
    centres = torch.cat(centres).flip(-1)[::stride]
    cells = torch.tensor([(w, h) for h, w in shapes])[:, None]
    count, rows = len(centres), (batch, len(centres), heads, len(shapes), POINTS)
    places = centres[None, :, None, None, None] * cells + 2 * torch.randn(*rows, 2, generator=generator) - 0.5
    places = places.floor() + 0.1 + 0.8 * (places - places.floor())
    value = torch.randn(batch, sum(h * w for h, w in shapes), heads, depth, generator=generator)
    weights = torch.rand(batch, count, heads, len(shapes) * POINTS, generator=generator).softmax(-1).view(rows)
    precise = torch.promote_types(dtype, torch.float32)
    parts = (value.to(dtype), (places.to(precise) + 0.5) / cells, weights.to(precise))
    return [x.to(device).requires_grad_() for x in parts]


def in_float32(arguments: list[Tensor]) -> list[Tensor]:
    """The same for a peer that has nothing lower."""
    precise = torch.promote_types(arguments[0].dtype, torch.float32)
    return [x.detach().to(precise).requires_grad_() for x in arguments]


def with_gradients(attention: Attention, shapes: Tensor, arguments: list[Tensor]) -> list[Tensor]:
    """The result and the gradients of all three inputs."""
    result = attention(arguments[0], shapes, *arguments[1:])
    grad = torch.linspace(-1, 1, result.numel(), device=result.device).to(result.dtype).view(result.shape)
    return [result, *torch.autograd.grad(result, arguments, grad)]


def check(peer: Attention, size: str, shapes: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """Raises unless results and gradients agree to a share of the largest: float64 1e-9, float32 1e-4, below 2e-2."""
    for precision, tolerance, stride in ((torch.float64, 1e-9, 7), (torch.float32, 1e-4, 1), (dtype, 2e-2, 1)):
        arguments = inputs(size, precision, device, stride=stride)
        pairs = zip(
            with_gradients(deformable_attention, shapes, arguments),
            with_gradients(peer, shapes, in_float32(arguments)),
            strict=True,
        )
        for ours, theirs in pairs:
            allowed = tolerance * theirs.abs().max().item()
            torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=0, atol=allowed)


def our_kernels(device: torch.device) -> list[str]:
    """Settings of $DETECTRON2_SAM_KERNELS: as it is, and where that means the CUDA build, Triton's kernel too."""
    asked = os.environ.get(KERNELS_VARIABLE, "")
    return [asked, "triton"] if kernel_in_use(device) == "cuda" else [asked]


def measure(size: str, args: argparse.Namespace, name: str, peer: Attention) -> None:
    """Prints the lines of one size with the kernel that now runs."""
    device, dtype = torch.device(args.device), DTYPES[args.dtype]
    shapes = torch.tensor(SIZES[size][3], device=device)
    check(peer, size, shapes, dtype, device)
    arguments = inputs(size, dtype, device)
    theirs = in_float32(arguments)
    pairs = SIZES[size][3]  # a tensor on a GPU would have to be read back

    def ours(value: Tensor, _: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return deformable_attention(value, pairs, locations, weights)

    def forward(attention: Attention, arguments: list[Tensor]) -> None:
        with torch.no_grad():
            attention(arguments[0], shapes, *arguments[1:])

    def both(attention: Attention, arguments: list[Tensor]) -> None:
        with_gradients(attention, shapes, arguments)

    on_gpu = device.type == "cuda"
    for what, run in (("forward", forward), ("forward + backward", both)):
        measured = in_turn(
            lambda run=run: run(peer, theirs),
            lambda run=run: run(ours, arguments),
            repeats=args.repeats * (10 if size == "tiny" or on_gpu else 1),
            threads=args.threads,
            finish=torch.cuda.synchronize if on_gpu else None,
        )
        kernel = {"kernel": kernel_in_use(device), "device": args.device, "dtype": args.dtype}
        target = (GPU_TARGETS if on_gpu else TARGETS)[what] if size == "1024" else None
        tell(f"deformable attention, {size}, {what}", name, measured | kernel, target=target)


def main() -> None:
    """Prints two lines for each size and kernel."""
    parser = Parser(__doc__, threads=1, repeats=5)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    args = parser.parse()
    device = resolve_device(args.device)
    name, peer = find_peer(device)
    for os.environ[KERNELS_VARIABLE] in our_kernels(device):
        for size in args.sizes:
            measure(size, args, name, peer)


if __name__ == "__main__":
    sys.exit(run_tool(main))
