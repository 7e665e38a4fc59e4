"""Multi-head attention with a boolean mask that all heads share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """softmax(Q Kᵀ / √D) V in every head, then a linear map.

    As nn.MultiheadAttention, except that a mask is boolean, one for all heads, and never copied per head.
    """

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        for linear in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            queries: [B, N, W].
            keys, values: [B, S, W].
            allowed: [B, N, S] bool, True where a query may look, at least once in each row; None: anywhere.

        Returns:
            [B, N, W].
        """
        q, k, v = (
            linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, N or S, D]
            for linear, x in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        mask = None if allowed is None else allowed.unsqueeze(1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.output(attended.transpose(1, 2).flatten(2))
