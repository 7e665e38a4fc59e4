"""Masked transformer decoder: learned queries become one embedding and one mask each.

PosSAM (arXiv 2403.09620), Section 3 and Figure 3, with Mask2Former's decoder (Cheng et al., arXiv 2112.01527), Eq. (1):

    X_l = softmax(A_{l-1} + Q_l K_lᵀ) V_l + X_{l-1};    A_{l-1}(x, y) = 0 if M_{l-1}(x, y) ≥ 0.5, else −∞
    M_l = sigmoid(mask_mlp(LN(X_l)) · F_mask)

    X_l -> queries    M_l (as logits, so 0.5 becomes 0) -> mask_logits    F_mask -> mask_features    LN -> output_norm
    A_l -> allowed = (A_l == 0)

One layer: masked cross-attention, self-attention, feed-forward, each added and normalised. Layers take the maps in the
cycle p5, p4, p3. A query whose mask is empty looks everywhere. `output_norm` and `mask_mlp` serve all prediction
points, of which there are layers + 1: the learned queries are the first.

Resizing is linear, so it commutes with the dot product: resizing F_mask once per map gives the same A as resizing the
masks after every layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn

from possam.attention import Attention
from possam.pixel_decoder import LEVELS
from possam.position_encoding import map_encoding


class DecoderOutput(NamedTuple):
    """P prediction points, the last one final. In eval mode P = 1: only the final one exists.

    Attributes:
        query_embeddings: [P, B, Q, W], after the shared output LayerNorm.
        mask_logits: [P, B, Q, h, w], at the size of the mask features (stride 4).
    """

    query_embeddings: Tensor
    mask_logits: Tensor


def predict_masks(mask_embeddings: Tensor, mask_features: Tensor) -> Tensor:
    """Dot products of mask_embeddings [P, B, Q, W] with mask_features [B, W, h, w]: logits [P, B, Q, h, w]."""
    return torch.einsum("pbqc,bchw->pbqhw", mask_embeddings, mask_features)


def attention_mask(mask_embeddings: Tensor, mask_features: Tensor) -> Tensor:
    """Where each query may look: inside its mask, or everywhere if that is empty.

    Args:
        mask_embeddings: [B, Q, W].
        mask_features: [B, W, S], at the size of the map attended to.

    Returns:
        [B, Q, S] bool; every row has a True.
    """
    inside = torch.bmm(mask_embeddings, mask_features) >= 0
    return inside | ~inside.any(-1, keepdim=True)


class MaskedDecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward network; post-norm."""

    def __init__(self, width: int, *, num_heads: int, ffn_width: int) -> None:
        super().__init__()
        self.cross_attention = Attention(width, num_heads=num_heads)
        self.norm1 = nn.LayerNorm(width)
        self.self_attention = Attention(width, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, ffn_width), nn.ReLU(), nn.Linear(ffn_width, width))
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self, queries: Tensor, query_positions: Tensor, memory: Tensor, memory_positions: Tensor, allowed: Tensor
    ) -> Tensor:
        """Args: queries [B,Q,W]; query_positions [Q,W]; memory [B,S,W]; memory_positions [S,W]; allowed [B,Q,S]."""
        attended = self.cross_attention(queries + query_positions, memory + memory_positions, memory, allowed)
        queries = self.norm1(queries + attended)
        located = queries + query_positions
        queries = self.norm2(queries + self.self_attention(located, located, queries))
        return self.norm3(queries + self.ffn(queries))


class MaskedTransformerDecoder(nn.Module):
    """Args: width W of maps, mask features and queries; num_queries Q; num_layers, a prediction after each."""

    def __init__(
        self, width: int, *, num_queries: int, num_layers: int = 9, num_heads: int = 8, ffn_width: int = 2048
    ) -> None:
        super().__init__()
        self.width = width
        self.query_features = nn.Embedding(num_queries, width)
        self.query_positions = nn.Embedding(num_queries, width)
        self.level_embeddings = nn.Embedding(len(LEVELS), width)
        self.layers = nn.ModuleList(
            MaskedDecoderLayer(width, num_heads=num_heads, ffn_width=ffn_width) for _ in range(num_layers)
        )
        self.output_norm = nn.LayerNorm(width)
        self.mask_mlp = MLP(width, width, width, 3)

    def forward(self, multi_scale: list[Tensor], mask_features: Tensor) -> DecoderOutput:
        """Args: multi_scale: [p5, p4, p3] maps [B, W, ·, ·]; mask_features [B, W, h4, w4]."""
        memory, positions, resized = [], [], []
        for level, features in enumerate(multi_scale):
            memory.append(features.flatten(2).transpose(1, 2) + self.level_embeddings.weight[level])
            positions.append(map_encoding(features, self.width))
            resized.append(F.interpolate(mask_features.detach(), features.shape[-2:], mode="bilinear").flatten(2))

        queries = self.query_features.weight.expand(len(mask_features), -1, -1)
        points = [self.output_norm(queries)]
        for index, layer in enumerate(self.layers):
            level = index % len(LEVELS)
            with torch.no_grad():
                allowed = attention_mask(self.mask_mlp(points[-1]), resized[level])
            queries = layer(queries, self.query_positions.weight, memory[level], positions[level], allowed)
            points.append(self.output_norm(queries))

        embeddings = torch.stack(points if self.training else points[-1:])
        return DecoderOutput(embeddings, predict_masks(self.mask_mlp(embeddings), mask_features))
