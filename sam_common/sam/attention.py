"""Attention with decomposed relative positions, exact and in bounded memory.

Source: MViTv2 (Li et al., arXiv 2112.01526, Eq. 4) as ViTDet and SAM use it. For a query at (y, x) and a key at (j, i)

    logit = q·k / sqrt(D) + q·R_h[y, j] + q·R_w[x, i]

so the bias of all H·W × H·W pairs is the sum of an H-wide and a W-wide table per query, and never exists as a whole:

- It is expanded for some rows of queries at a time and handed to `scaled_dot_product_attention`, which makes no
  attention matrix. This is the faster way as long as no gradient goes through the queries.
- With a gradient, PyTorch would keep matrix and bias of all pairs for the backward pass. Where these are large, the
  tables go into queries and keys instead, and the attention needs no bias at all:

      [q / sqrt(D), q·R_h, q·R_w] · [k, one-hot(j), one-hot(i)] = logit

Symbols: N images or windows, H × W their tokens, D the channels of a head; R_h, R_w → `rel_h`, `rel_w`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_BIAS = {"cpu": 2**22, "cuda": 2**26}
"""Elements of the expanded bias that may exist at once: on a CPU 16 MiB in float32, which malloc hands out again rather
than ask the system for zeroed pages; on a GPU, whose processors want more queries at once, 128 MiB in bfloat16
(untested on a GPU)."""
MAX_KEPT = 2**24
"""Elements of the bias that may be kept for the backward pass."""


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Relative position vectors of every (query, key) pair along one axis.

    Args:
        table: [L, D], one vector per offset; resized linearly where L is not 2·size - 1.
        size: tokens along the axis.

    Returns:
        [size, size, D]; entry [q, k] belongs to the offset q - k.
    """
    length = 2 * size - 1
    if torch.jit.is_tracing() or table.shape[0] != length:  # a trace holds for every size
        table = F.interpolate(table.T[None], size=length, mode="linear")[0].T
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + size - 1]


def relative_position_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor,
    rel_w: Tensor,
    *,
    max_bias: int | None = None,
    max_kept: int = MAX_KEPT,
) -> Tensor:
    """softmax(q·k / sqrt(D) + q·R_h + q·R_w) v.

    Args:
        q: [N, heads, h, w, D], the first h rows and w columns of queries, or all of them.
        k, v: [N, heads, H, W, D].
        rel_h: [h, H, D], rel_w: [w, W, D], from `relative_positions`.
        max_bias: elements of the bias expanded at once; at least one row of queries is. None: `MAX_BIAS`.
        max_kept: elements up to which the bias is kept for a backward pass.

    Returns:
        [N, heads, h, w, D].
    """
    (N, heads, h, w, _), (H, W) = q.shape, k.shape[2:4]
    bias_h = torch.einsum("nhywd,yjd->nhywj", q, rel_h)
    bias_w = torch.einsum("nhywd,wid->nhywi", q, rel_w)
    keys, values = k.flatten(2, 3), v.flatten(2, 3)
    per_row = N * heads * w * H * W
    if bias_h.requires_grad and h * per_row > max_kept:
        return attention_with_positions_inside(q, k, v, bias_h, bias_w)
    if max_bias is None:
        max_bias = max_kept if bias_h.requires_grad else MAX_BIAS.get(q.device.type, MAX_BIAS["cpu"])
    parts = [(q, bias_h, bias_w)]
    if not torch.jit.is_tracing():  # a trace holds for every number of rows
        rows = max(1, max_bias // per_row)
        parts = list(zip(q.split(rows, 2), bias_h.split(rows, 2), bias_w.split(rows, 2), strict=True))
    outputs = []
    for q_rows, h_rows, w_rows in parts:
        # einsum's results have strides of its own, which the sum would inherit and `flatten` then have to copy.
        bias = h_rows.contiguous()[..., :, None] + w_rows.contiguous()[..., None, :]  # [N, heads, rows, w, H, W]
        bias = bias.flatten(4, 5).flatten(2, 3)  # [N, heads, rows·w, H·W]
        outputs.append(F.scaled_dot_product_attention(q_rows.flatten(2, 3), keys, values, attn_mask=bias))
    return torch.cat(outputs, dim=2).unflatten(2, (h, w))


def attention_with_positions_inside(q: Tensor, k: Tensor, v: Tensor, bias_h: Tensor, bias_w: Tensor) -> Tensor:
    """The same attention without a bias: what it keeps for a backward pass grows with the tokens, not with their pairs.

    Args:
        q: [N, heads, h, w, D]; k, v: [N, heads, H, W, D].
        bias_h: q·R_h [N, heads, h, w, H]; bias_w: q·R_w [N, heads, h, w, W].

    Returns:
        [N, heads, h, w, D].
    """
    H, W, D = k.shape[-3:]
    rows, columns = (torch.eye(size, dtype=k.dtype, device=k.device) for size in (H, W))
    position = torch.cat((rows[:, None].expand(H, W, H), columns.expand(H, W, W)), dim=-1)  # one-hot(j), one-hot(i)
    queries = torch.cat((q / math.sqrt(D), bias_h, bias_w), dim=-1).flatten(2, 3)
    keys = torch.cat((k, position.expand(*k.shape[:2], -1, -1, -1)), dim=-1).flatten(2, 3)
    values = F.pad(v, (0, H + W)).flatten(2, 3)  # kernels want one width
    attended = F.scaled_dot_product_attention(queries, keys, values, scale=1.0)
    return attended[..., :D].unflatten(2, q.shape[2:4])
