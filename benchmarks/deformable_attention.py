"""Multi-scale deformable attention on the CPU against Mask2Former's PyTorch core: JSON lines, equality first.

    python benchmarks/deformable_attention.py                          # the 1024² pixel decoder and the tiny one
    python benchmarks/deformable_attention.py --sizes 1024 --threads 2
    BENCH_PEERS=clones python benchmarks/deformable_attention.py       # with clones/Mask2Former, the peer itself

Without the peer ours runs against the same formulation written out here: `grid_sample` map by map, the samples of all
maps side by side, weighted, summed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from benchmarks.side_by_side import import_file, in_turn, peer_file, tell
from sam_common.layers.deformable_attention import deformable_attention, kernel_in_use

SIZES = {  # batch, heads, channels per head, maps
    "1024": (1, 8, 32, ((32, 32), (64, 64), (128, 128))),
    "tiny": (4, 4, 16, ((8, 8), (16, 16), (32, 32))),
}
POINTS = 4
TARGETS = {"forward": 15.0, "forward + backward": 8.0}
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def plain(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """The core in PyTorch, query by query and point by point in the rows of `grid_sample`."""
    batch, _, heads, depth = value.shape
    queries = locations.shape[1]
    sizes = [(int(h), int(w)) for h, w in shapes]
    maps = value.split([h * w for h, w in sizes], dim=1)
    sampled = []
    for level, (h, w) in enumerate(sizes):
        image = maps[level].flatten(2).transpose(1, 2).reshape(batch * heads, depth, h, w)
        grid = (2 * locations[:, :, :, level] - 1).transpose(1, 2).flatten(0, 1)  # [B·heads, N, P, 2]
        sampled.append(F.grid_sample(image, grid, align_corners=False))
    rows = weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    output = (torch.stack(sampled, dim=-2).flatten(-2) * rows).sum(-1)
    return output.view(batch, heads * depth, queries).transpose(1, 2).contiguous()


def find_peer() -> tuple[str, Attention]:
    """Mask2Former's function where its clone is, else ours of the same."""
    path = peer_file("Mask2Former", "mask2former/modeling/pixel_decoder/ops/functions/ms_deform_attn_func.py")
    if path is None:
        return "the plain PyTorch formulation (BENCH_PEERS has no Mask2Former)", plain
    sys.modules.setdefault("MultiScaleDeformableAttention", ModuleType("MultiScaleDeformableAttention"))  # its CUDA op
    return "Mask2Former", import_file(path).ms_deform_attn_core_pytorch


def inputs(size: str, dtype: torch.dtype, *, stride: int = 1) -> list[Tensor]:
    """Value, locations around every `stride`-th cell of all maps, at least 0.1 of a cell off the kinks, and weights."""
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
    return [x.to(dtype).requires_grad_() for x in (value, (places.to(dtype) + 0.5) / cells, weights)]


def with_gradients(attention: Attention, shapes: Tensor, arguments: list[Tensor]) -> list[Tensor]:
    """The result and the gradients of all three inputs."""
    result = attention(arguments[0], shapes, *arguments[1:])
    grad = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return [result, *torch.autograd.grad(result, arguments, grad)]


def check(peer: Attention, size: str, shapes: Tensor) -> None:
    """Raises unless results and gradients agree, in float64 to 1e-9 and in float32 to 1e-4 of the largest."""
    for dtype, tolerance, stride in ((torch.float64, 1e-9, 7), (torch.float32, 1e-4, 1)):
        arguments = inputs(size, dtype, stride=stride)
        pairs = zip(
            with_gradients(deformable_attention, shapes, arguments),
            with_gradients(peer, shapes, arguments),
            strict=True,
        )
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * theirs.abs().max().item())


def main() -> None:
    """Prints two lines for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    name, peer = find_peer()
    for size in args.sizes:
        shapes = torch.tensor(SIZES[size][3])
        check(peer, size, shapes)
        arguments = inputs(size, torch.float32)

        def forward(attention: Attention, arguments: list[Tensor] = arguments, shapes: Tensor = shapes) -> None:
            with torch.no_grad():
                attention(arguments[0], shapes, *arguments[1:])

        def both(attention: Attention, arguments: list[Tensor] = arguments, shapes: Tensor = shapes) -> None:
            with_gradients(attention, shapes, arguments)

        for what, run in (("forward", forward), ("forward + backward", both)):
            measured = in_turn(
                lambda run=run: run(peer),
                lambda run=run: run(deformable_attention),
                repeats=args.repeats * (10 if size == "tiny" else 1),
                threads=args.threads,
            )
            kernel = {"kernel": kernel_in_use(torch.device("cpu"))}
            tell(f"deformable attention, {size}, {what}", name, measured | kernel, target=TARGETS[what])


if __name__ == "__main__":
    main()
