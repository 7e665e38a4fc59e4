"""Local Discriminative Pooling (LDP): one open-vocabulary embedding per mask, from SAM's and CLIP's features.

PosSAM (arXiv 2403.09620), Section 3.2, Figures 3 and 5. [ours]: the equations are rebuilt from the figures.

    m_k    = 1[ resize(M_k) > 0 ]                          no gradient
    pool(F, m) = Σ F·m / (Σ m + 1e-8)
    e_sam  = pool(F_mask, m) + LN(q_k)
    e_clip = CLIP_head(pool(F_clip, m))                    CLIP's own frozen pooling norm and projection; no gradient
    x_k    = [W_s e_sam ; W_c e_clip]
    X'     = TransformerEncoderLayer(X)                    self-attention over the Q masks
    G      = LN(W_o X')

    M_k -> mask_logits          q_k after LN -> query_embeddings     F_mask -> mask_features    F_clip -> clip_features
    e_clip -> clip_embeddings   W_s -> sam_projection                W_c -> clip_projection     W_o -> output_projection

`+ LN(q_k)` keeps two queries with one mask distinguishable and gives the class loss a path to the queries.

Besides LDP, the alternatives of Table 5. All four are built as (width, embed_dim, clip_channels=…) and called alike.
Shapes: B images, Q masks, W decoder width, E CLIP's embedding size, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from possam.attention import Attention
from possam.position_encoding import map_encoding


def binary_masks(mask_logits: Tensor, size: Sequence[int]) -> Tensor:
    """m = 1[resize(M) > 0], detached.

    [ours]: the resize is bilinear and antialiased, so that a cell of a much coarser map is on if the mask is positive
    on average around it, not at the 2×2 pixels nearest its centre. A mask so small that no cell survives takes all
    cells that it touches instead: a small object is never pooled from nothing. A mask without a positive logit stays
    empty.

    Args:
        mask_logits: [B, Q, H, W].
        size: (h, w) of the result.

    Returns:
        [B, Q, h, w] bool.
    """
    logits = mask_logits.detach()
    if logits.shape[-2:] == tuple(size):
        return logits > 0
    masks = F.interpolate(logits.float(), tuple(size), mode="bilinear", antialias=True) > 0
    touched = F.adaptive_max_pool2d(logits, tuple(size)) > 0
    return masks | (touched & ~masks.any(dim=(-2, -1), keepdim=True))


def masked_average_pool(features: Tensor, mask_logits: Tensor) -> Tensor:
    """pool(F, m): the mean feature inside each mask; zero for an empty mask. In float32 under any autocast.

    Args:
        features: [B, C, h, w].
        mask_logits: [B, Q, H, W], of any size; detached.

    Returns:
        [B, Q, C].
    """
    masks = binary_masks(mask_logits, features.shape[-2:]).flatten(2)  # [B, Q, h·w]
    with torch.autocast(features.device.type, enabled=False):  # sums over many cells overflow float16
        sums = torch.bmm(masks.float(), features.float().flatten(2).transpose(1, 2))
    return sums / (masks.sum(-1, keepdim=True) + 1e-8)


class PoolingInputs(NamedTuple):
    """What any of the four makes of masks their embeddings [B, Q, E], to be compared with text embeddings.

    Attributes:
        query_embeddings: [B, Q, W], after the decoder's output norm.
        mask_logits: [B, Q, h, w]; no gradient reaches them.
        mask_features: [B, W, h, w].
        clip_features: [B, clip_channels, hc, wc], frozen.
        clip_embeddings: [B, Q, E], e_clip; frozen.
    """

    query_embeddings: Tensor
    mask_logits: Tensor
    mask_features: Tensor
    clip_features: Tensor
    clip_embeddings: Tensor


class LocalDiscriminativePooling(nn.Module):
    """`POOLING ldp`. `clip_channels` is unused: only CrossAttentionPooling looks at raw CLIP features."""

    def __init__(self, width: int, embed_dim: int, *, clip_channels: int, num_heads: int = 8) -> None:
        super().__init__()
        self.sam_projection = nn.Linear(width, embed_dim)
        self.clip_projection = nn.Linear(embed_dim, embed_dim)
        self.encoder = nn.TransformerEncoderLayer(
            2 * embed_dim, num_heads, 8 * embed_dim, dropout=0.0, activation="gelu", batch_first=True
        )
        self.output_projection = nn.Linear(2 * embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, given: PoolingInputs) -> Tensor:
        e_sam = masked_average_pool(given.mask_features, given.mask_logits) + given.query_embeddings
        x = torch.cat([self.sam_projection(e_sam), self.clip_projection(given.clip_embeddings.detach())], dim=-1)
        return self.norm(self.output_projection(self.encoder(x)))


class SamMaskPooling(nn.Module):
    """`POOLING maskpool_sam`, also the stand-in when LDP is off (Table 4): LN(W_s e_sam)."""

    def __init__(self, width: int, embed_dim: int, *, clip_channels: int) -> None:
        super().__init__()
        self.sam_projection = nn.Linear(width, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, given: PoolingInputs) -> Tensor:
        e_sam = masked_average_pool(given.mask_features, given.mask_logits) + given.query_embeddings
        return self.norm(self.sam_projection(e_sam))


class ClipMaskPooling(nn.Module):
    """`POOLING maskpool_clip`: LN(W_c e_clip). Equal masks get equal embeddings."""

    def __init__(self, width: int, embed_dim: int, *, clip_channels: int) -> None:
        super().__init__()
        self.clip_projection = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, given: PoolingInputs) -> Tensor:
        return self.norm(self.clip_projection(given.clip_embeddings.detach()))


class CrossAttentionPooling(nn.Module):
    """`POOLING cross_attention` [ours]: LN(W (q + attention(q, F_clip))), all CLIP features, no masks."""

    def __init__(self, width: int, embed_dim: int, *, clip_channels: int, num_heads: int = 8) -> None:
        super().__init__()
        self.width = width
        self.clip_projection = nn.Linear(clip_channels, width)
        self.attention = Attention(width, num_heads=num_heads)
        self.output_projection = nn.Linear(width, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, given: PoolingInputs) -> Tensor:
        memory = self.clip_projection(given.clip_features.detach().flatten(2).transpose(1, 2))  # [B, hc·wc, W]
        positions = map_encoding(given.clip_features, self.width)
        attended = self.attention(given.query_embeddings, memory + positions, memory)
        return self.norm(self.output_projection(given.query_embeddings + attended))
