"""PLUG's two branches against two passes of segment-anything's encoder with LoRA beside its weights: JSON lines.

    python -m benchmarks.plug_branches                         # ViT-B, one crop of 512², and the tiny one; one thread
    python -m benchmarks.plug_branches --sizes H --threads 2

Equality first: the embeddings of both branches, and the gradients of all LoRA weights. Then inference, where ours adds
LoRA to the weights, and training: forward and backward. What is due to the branches alone shows beside a second peer,
without a target: two passes of our own encoder with LoRA beside its weights. Nor has the tiny one a target: its crop
is one window, so that there is no padding to leave out.
"""

from __future__ import annotations

import copy
import sys
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from benchmarks.side_by_side import Parser, in_turn, tell
from detectron2_sam.commands.cli import run_tool
from plug.parallel_lora import ParallelEncoder
from plug.resize_positions import resize_positions
from sam_common.sam.build import SIZES, build_image_encoder
from sam_common.sam.load import draw_positions

CROPS = {"T": (8, 128, 8), "B": (1, 512, 16), "L": (1, 512, 16), "H": (1, 512, 16)}  # how many, their side, LoRA's rank
TARGET = {"inference": 1.2, "training": 1.15}


class Lora(nn.Module):
    """A block's frozen `qkv` with low-rank changes of queries and values beside it."""

    def __init__(self, qkv: nn.Linear, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.qkv = qkv
        self.down = nn.Parameter(down.clone())  # [2, rank, C]: of q and of v
        self.up = nn.Parameter(up.clone())  # [2, C, rank]
        self.bias = qkv.bias  # what our encoder asks for

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        changes = [x @ down.mT @ up.mT for down, up in zip(self.down, self.up, strict=True)]
        return torch.cat((q + changes[0], k, v + changes[1]), dim=-1)


class TwoPasses(nn.Module):
    """The obvious way: [B, 3, height, width] -> [2, B, C, height / 16, width / 16], one branch after the other."""

    def __init__(self, encoder: nn.Module, ours: ParallelEncoder) -> None:
        super().__init__()
        self.branches = nn.ModuleList(copy.deepcopy(encoder) for _ in range(ours.num_branches))
        for branch, one in enumerate(self.branches):
            for block, parallel in zip(one.blocks, ours.encoder.blocks, strict=True):  # type: ignore[arg-type]
                lora = parallel.attn.qkv
                block.attn.qkv = Lora(block.attn.qkv, lora.down[:, branch].detach(), lora.up[:, branch].detach())

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([branch(images) for branch in self.branches])


def build(size: str) -> tuple[nn.Module, nn.Module, ParallelEncoder]:
    """Two passes of segment-anything's encoder, two of ours, and both branches at once: the same weights in all."""
    torch.manual_seed(0)
    _, side, rank = CROPS[size]
    encoder = build_image_encoder(size)
    draw_positions(encoder)
    resize_positions(encoder, side)
    encoder.requires_grad_(False)
    of_size = SIZES[size]
    official = ImageEncoderViT(
        side,
        embed_dim=of_size.dim,
        depth=of_size.depth,
        num_heads=of_size.num_heads,
        global_attn_indexes=of_size.global_blocks,
        use_rel_pos=True,
        window_size=of_size.window_size,
        out_chans=of_size.width,
        norm_layer=lambda channels: nn.LayerNorm(channels, eps=1e-6),
    ).requires_grad_(False)
    official.load_state_dict(encoder.state_dict())
    ours = ParallelEncoder(copy.deepcopy(encoder), size=side, rank=rank, merge=True)
    for name, parameter in ours.named_parameters():
        if name.endswith("up"):
            nn.init.normal_(parameter, std=0.02)
    return TwoPasses(official, ours), TwoPasses(encoder, ours), ours


def lora_gradients(encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """Of a forward and a backward pass, A and B of each block, [2, branches, ·, ·]."""
    embeddings = encoder(images)
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    direction = torch.linspace(-1, 1, embeddings.numel()).view(embeddings.shape)
    gradients = dict(zip(trained, torch.autograd.grad(embeddings, list(trained.values()), direction), strict=True))
    if isinstance(encoder, ParallelEncoder):
        return list(gradients.values())
    names = [name.removeprefix("branches.0.") for name in trained if name.startswith("branches.0.")]
    return [torch.stack([gradients[f"branches.{b}.{name}"] for b in range(2)], dim=1) for name in names]


def predict(encoder: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return encoder.eval()(images)


def check(peer: nn.Module, ours: ParallelEncoder, images: Tensor) -> None:
    """Raises unless embeddings and gradients agree, to 1e-4 and 1e-3 of the largest of each."""
    pairs = [(predict(ours, images), predict(peer, images), 1e-4)]
    gradients = zip(lora_gradients(ours.train(), images), lora_gradients(peer.train(), images), strict=True)
    pairs += [(found, expected, 1e-3) for found, expected in gradients]
    for found, expected, tolerance in pairs:
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def main() -> None:
    """Prints two lines for each size and peer."""
    parser = Parser(__doc__, threads=1, repeats=2)
    parser.add_argument("--sizes", nargs="+", choices=CROPS, default=["T", "B"])
    args = parser.parse()
    for size in args.sizes:
        official, passes, ours = build(size)
        count, side, _ = CROPS[size]
        images = torch.randn(count, 3, side, side)
        for name, peer in (("segment-anything's encoder", official), ("our encoder", passes)):
            check(peer, ours, images)
            for what, run in (("inference", predict), ("training", lora_gradients)):
                for encoder in (peer, ours):
                    encoder.train(what == "training")
                measured = in_turn(
                    partial(run, peer, images),
                    partial(run, ours, images),
                    repeats=args.repeats * (10 if size == "T" else 1),
                    threads=args.threads,
                )
                target = TARGET[what] if peer is official and size != "T" else None
                case = f"PLUG's two branches, {size}, {count} × {side}², {what}"
                tell(case, f"two passes of {name}", measured, target=target)


if __name__ == "__main__":
    sys.exit(run_tool(main))
