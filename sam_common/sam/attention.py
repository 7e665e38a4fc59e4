"""Attention with decomposed relative positions, exact and in bounded memory.

Source: MViTv2 (Li et al., arXiv 2112.01526, Eq. 4) as ViTDet and SAM use it. For a query at (y, x) and a key at (j, i)

    logit = q·k / sqrt(D) + q·R_h[y, j] + q·R_w[x, i]

so the bias of all H·W × H·W pairs is the sum of an H-wide and a W-wide table per query. It is expanded for some rows of
queries at a time and handed to `scaled_dot_product_attention`; the attention matrix itself never exists.

Symbols: N images or windows, H × W their tokens, D the channels of a head; R_h, R_w → `rel_h`, `rel_w`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_BIAS = 2**24
"""Elements of the expanded bias that may exist at once: 64 MiB in float32."""


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Relative position vectors of every (query, key) pair along one axis.

    Args:
        table: [L, D], one vector per offset; resized linearly where L is not 2·size - 1.
        size: tokens along the axis.

    Returns:
        [size, size, D]; entry [q, k] belongs to the offset q - k.
    """
    length = 2 * size - 1
    if table.shape[0] != length:
        table = F.interpolate(table.T[None], size=length, mode="linear")[0].T
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + size - 1]


def relative_position_attention(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *, max_bias: int = MAX_BIAS
) -> Tensor:
    """softmax(q·k / sqrt(D) + q·R_h + q·R_w) v.

    Args:
        q, k, v: [N, heads, H, W, D].
        rel_h: [H, H, D], rel_w: [W, W, D], from `relative_positions`.
        max_bias: elements of the bias expanded at once; at least one row of queries is.

    Returns:
        [N, heads, H, W, D].
    """
    N, heads, H, W, _ = q.shape
    keys, values = k.flatten(2, 3), v.flatten(2, 3)
    rows = max(1, max_bias // (N * heads * W * H * W))
    outputs = []
    for q_rows, rel_rows in zip(q.split(rows, dim=2), rel_h.split(rows), strict=True):
        bias_h = torch.einsum("nhywd,yjd->nhywj", q_rows, rel_rows)
        bias_w = torch.einsum("nhywd,wid->nhywi", q_rows, rel_w)
        bias = bias_h[..., :, None] + bias_w[..., None, :]  # [N, heads, rows, W, H, W]
        bias = bias.flatten(4, 5).flatten(2, 3)  # [N, heads, rows·W, H·W]
        outputs.append(F.scaled_dot_product_attention(q_rows.flatten(2, 3), keys, values, attn_mask=bias))
    return torch.cat(outputs, dim=2).unflatten(2, (H, W))
