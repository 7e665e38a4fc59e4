"""SAM's image encoder for any input size, on segment-anything's modules with official parameter names.

Only attention and windowing differ from segment-anything: attention runs in bounded memory (see `attention.py`), and
the projections of a windowed block see real tokens only. segment-anything pads a feature map with zeros *before* the
qkv projection, so a padded token's query, key and value are the projection's bias, and padded keys take part in the
softmax. Here the map is padded after the projection, with that bias: the same numbers, without computing them. What
padded tokens would attend to is thrown away in the end, so they do not ask.

Symbols: B images, H × W tokens (image height / 16, width / 16), C channels, S window size.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from segment_anything.modeling import image_encoder as official
from torch import Tensor, nn
from torch.nn import functional as F

from sam_common.sam.attention import relative_position_attention, relative_positions

PATCH_SIZE = 16


class Attention(official.Attention):
    """Global multi-head attention with relative positions: [B, H, W, C] -> [B, H, W, C], any H and W."""

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.attend(self.qkv(x)))

    def attend(self, qkv: Tensor, h: int | None = None, w: int | None = None) -> Tensor:
        """[N, H, W, 3·C] queries, keys and values -> [N, h, w, C] values attended to within each of the N maps, by all
        tokens or by those of the first h rows and w columns."""
        _, H, W, _ = qkv.shape
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5).unbind(0)
        rel_h, rel_w = relative_positions(self.rel_pos_h, H)[:h], relative_positions(self.rel_pos_w, W)[:w]
        return relative_position_attention(q[:, :, :h, :w], k, v, rel_h, rel_w).permute(0, 2, 3, 1, 4).flatten(3)


class WindowAttention(Attention):
    """The same attention within windows of S × S tokens; the last row and column of windows are padded."""

    def forward(self, x: Tensor) -> Tensor:
        size = (self.rel_pos_h.shape[0] + 1) // 2  # a window's table holds its 2·S - 1 offsets
        if torch.jit.is_tracing():
            return self.proj(self.within_whole_windows(x, size))
        (rows, heights), (columns, widths) = strips(x.shape[1], size), strips(x.shape[2], size)
        qkv = pad_to_multiple(self.qkv(x), size, value=self.qkv.bias)
        bands = []
        for band, h in zip(qkv.split(rows, dim=1), heights, strict=True):
            parts = zip(band.split(columns, dim=2), widths, strict=True)
            bands.append(torch.cat([self.within_windows(part, size, h, w) for part, w in parts], dim=2))
        return self.proj(torch.cat(bands, dim=1))

    def within_windows(self, qkv: Tensor, size: int, h: int, w: int) -> Tensor:
        """[B, m·S, n·S, 3·C] -> [B, m·h, n·w, C]: of each window h rows and w columns ask, all of its tokens answer."""
        windows, _ = official.window_partition(qkv, size)
        attended = self.attend(windows, h, w).unflatten(0, (len(qkv), qkv.shape[1] // size, -1))
        return attended.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def within_whole_windows(self, x: Tensor, size: int) -> Tensor:
        """[B, H, W, C] -> the same; all tokens of the padded map ask, so that a trace holds for every H and W."""
        _, H, W, _ = x.shape
        qkv = self.qkv(F.pad(x, (0, 0, 0, -W % size, 0, -H % size)))
        windows, (padded_h, padded_w) = official.window_partition(qkv, size)
        attended = self.attend(windows).view(qkv.shape[0], padded_h // size, padded_w // size, size, size, -1)
        return attended.transpose(2, 3).reshape(qkv.shape[0], padded_h, padded_w, -1)[:, :H, :W]


def strips(length: int, size: int) -> tuple[list[int], list[int]]:
    """How windows cover an axis: the tokens under whole windows and under the padded one, where there are such, and how
    many tokens of a window are real in each."""
    whole, left = length // size * size, length % size
    found = [(whole, size)] * (whole > 0) + [(size, left)] * (left > 0)
    return [covered for covered, _ in found], [real for _, real in found]


def pad_to_multiple(x: Tensor, size: int, *, value: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, H', W', C] with H', W' the next multiples of `size`, filled with `value` [C]."""
    B, H, W, C = x.shape
    padded_h, padded_w = -(-H // size) * size, -(-W // size) * size
    if (padded_h, padded_w) == (H, W):
        return x
    padded = value.to(x.dtype).expand(B, padded_h, padded_w, C).clone()
    padded[:, :H, :W] = x
    return padded


class Block(official.Block):
    """A transformer block, windowed where `window_size` > 0: [B, H, W, C] -> [B, H, W, C]."""

    def __init__(self, dim: int, num_heads: int, *, window_size: int, grid: int) -> None:
        norm = partial(nn.LayerNorm, eps=1e-6)
        super().__init__(dim, num_heads, norm_layer=norm, window_size=window_size)
        attention, table = (WindowAttention, window_size) if window_size else (Attention, grid)
        self.attn = attention(dim, num_heads, use_rel_pos=True, input_size=(table, table))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ImageEncoder(official.ImageEncoderViT):
    """SAM's ViT.

    `forward`: images [B, 3, height, width], RGB, normalised with SAM's mean and standard deviation, height and width
    multiples of 16 -> image embeddings [B, out_channels, height / 16, width / 16].

    Attributes:
        out_channels: channels of the embeddings.
        img_size: side in pixels of the images it was pretrained on; its position tables have that size, and are resized
            for others: absolute positions bicubically, relative positions linearly as segment-anything does.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        *,
        num_heads: int,
        global_blocks: Collection[int],
        window_size: int = 14,
        out_channels: int = 256,
        img_size: int = 1024,
    ) -> None:
        super().__init__(img_size, PATCH_SIZE, embed_dim=dim, depth=0, out_chans=out_channels)
        self.out_channels = out_channels
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, window_size=0 if i in global_blocks else window_size, grid=img_size // PATCH_SIZE)
            for i in range(depth)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)  # [B, H, W, C]
        x = x + absolute_positions(self.pos_embed, x.shape[1:3])
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))

    def compile_blocks(self, **options: Any) -> None:
        """Has `torch.compile` translate the blocks when they are first called, and again for other sizes of images.

        Results differ by rounding. Blocks of a kind share what is compiled, so a deep encoder takes no longer than a
        shallow one. Names and state stay as they are. After some sizes (PyTorch's `recompile_limit`) others run
        uncompiled, with a warning. Compiled on a CPU in tests; untested on a GPU.

        Args:
            options: of `torch.compile`.
        """
        for block in self.blocks:
            block.compile(**options)


def absolute_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """[1, h, w, C] position table -> [1, H, W, C] for a grid of (H, W) tokens, resized bicubically where it differs.

    A trace resizes always, so that it holds for every grid; to the same size that changes nothing.
    """
    if not torch.jit.is_tracing() and table.shape[1:3] == grid:
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2), size=grid, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)
