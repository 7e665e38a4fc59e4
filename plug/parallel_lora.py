"""Parallel LoRA: one frozen SAM encoder, a set of low-rank changes for each branch, all branches in one pass.

PLUG, Section 3, Figure 3; LoRA: Hu et al., arXiv 2106.09685. In every block of the encoder the queries and values of
branch b ∈ {visible, amodal} are

    q = W_q x + B_q^b A_q^b x        v = W_v x + B_v^b A_v^b x        k = W_k x

    A [rank, C] is drawn as a linear layer's weight (Kaiming), B [C, rank] starts at zero: at first every branch is SAM.

The branches go through as one batch, branch after branch: the frozen products are shared, the low-rank ones are
batched. Up to the first block's query, key and value they are the same, so that much is computed once.

Symbols: S branches, B images, N = S·B; H × W tokens, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from plug.resize_positions import resize_positions
from sam_common.layers.activation_checkpointing import checkpoint_activations
from sam_common.sam.image_encoder import Block, ImageEncoder, absolute_positions


class ParallelLora(nn.Module):
    """In place of a block's `qkv`: tokens [N, H, W, C], branch after branch -> [N, H, W, 3·C].

    Args:
        qkv: the frozen projection.
        rank: of the changes.
        num_branches: S.
        shared: the tokens are the same for all branches, and come once: [B, H, W, C] -> [N, H, W, 3·C].
        merge: in evaluation, multiply by W + B A of each branch. It is made anew each time, which costs little beside
            the multiplication: nothing is kept that could be out of date or get into a checkpoint.
    """

    def __init__(
        self, qkv: nn.Linear, rank: int, num_branches: int, *, shared: bool = False, merge: bool = False
    ) -> None:
        super().__init__()
        self.qkv = qkv.requires_grad_(False)
        self.shared = shared
        self.merge = merge
        self.down = nn.Parameter(torch.empty(2, num_branches, rank, qkv.in_features))  # A of q and of v
        self.up = nn.Parameter(torch.zeros(2, num_branches, qkv.in_features, rank))  # B
        nn.init.kaiming_uniform_(self.down.view(-1, qkv.in_features), a=math.sqrt(5))

    @property
    def bias(self) -> Tensor:
        """What a token of zeros becomes: the windows of a block are padded with it."""
        return self.qkv.bias

    def forward(self, x: Tensor) -> Tensor:
        num_branches = self.down.shape[1]
        tokens = x.flatten(0, 2)[None] if self.shared else x.unflatten(0, (num_branches, -1)).flatten(1, 3)
        tokens = tokens.expand(num_branches, -1, -1)  # [S, B·H·W, C]
        shape = (num_branches * x.shape[0] if self.shared else x.shape[0], *x.shape[1:-1], -1)
        if self.merge and not self.training:
            return torch.baddbmm(self.qkv.bias, tokens, self.merged().mT).view(shape)
        base = self.qkv(x)
        q, v = (torch.bmm(torch.bmm(tokens, self.down[i].mT), self.up[i].mT).view(shape) for i in (0, 1))
        if self.shared:
            base = base.repeat(num_branches, 1, 1, 1)
        base_q, base_k, base_v = base.chunk(3, dim=-1)
        return torch.cat((base_q + q, base_k, base_v + v), dim=-1)

    def merged(self) -> Tensor:
        """The branches' projections W + B A, [S, 3·C, C]."""
        weight = self.qkv.weight.repeat(self.down.shape[1], 1, 1)
        channels = self.qkv.in_features
        for start, up, down in zip((0, 2 * channels), self.up, self.down, strict=True):  # q and v
            weight[:, start : start + channels].baddbmm_(up, down)
        return weight


class ParallelEncoder(nn.Module):
    """SAM's image encoder, frozen, with a set of LoRA changes for each branch.

    `forward`: images [B, 3, size, size], normalised -> image embeddings [S, B, out_channels, size / 16, size / 16].

    Args:
        encoder: its weights are frozen, and its position tables resized to `size`, once.
        size: side of the crops, pixels, a multiple of 16.
        merge: in evaluation, run on merged weights; the same embeddings.
        checkpoint: recompute the activations of the blocks in the backward pass: less memory for more time.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        *,
        size: int,
        rank: int,
        num_branches: int = 2,
        merge: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        resize_positions(encoder, size)
        self.encoder = encoder.requires_grad_(False)
        self.num_branches = num_branches
        blocks = cast("Sequence[Block]", encoder.blocks)
        for index, block in enumerate(blocks):
            block.attn.qkv = ParallelLora(block.attn.qkv, rank, num_branches, shared=index == 0, merge=merge)
        if checkpoint:
            checkpoint_activations((blocks[0].attn, blocks[0].mlp, *blocks[1:]))  # as `forward` calls them

    def forward(self, images: Tensor) -> Tensor:
        encoder = self.encoder
        x = encoder.patch_embed(images)  # [B, H, W, C]
        x = x + absolute_positions(encoder.pos_embed, x.shape[1:3])
        first, *others = encoder.blocks
        x = x.repeat(self.num_branches, 1, 1, 1) + first.attn(first.norm1(x))
        x = x + first.mlp(first.norm2(x))
        for block in others:
            x = block(x)
        return encoder.neck(x.permute(0, 3, 1, 2)).unflatten(0, (self.num_branches, -1))
