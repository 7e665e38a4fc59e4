"""SAM's two-way decoder in place of the masked one: the comparison of PosSAM's Table 6 (arXiv 2403.09620).

Blocks of SAM's two-way transformer (Kirillov et al., arXiv 2304.02643, Figure 14) on the stride-16 map, with learned
queries instead of prompts: self-attention, queries to image, feed-forward, image to queries. SAM ends with one more
attention from its tokens to the image; here that ends every prediction. Masks are predicted as in the masked decoder.

[ours]: the paper names "1 or 9 blocks" and supervision only. Here every block is supervised (P = num_layers; the
learned queries themselves are not); last attention, output norm and mask MLP are shared by all prediction points.
"""

from __future__ import annotations

import torch
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn

from possam.masked_transformer_decoder import DecoderOutput, predict_masks
from possam.pixel_decoder import LEVELS
from possam.position_encoding import map_encoding


class TwoWayDecoder(nn.Module):
    """Args: width W, a multiple of 2·num_heads; num_queries Q; num_layers, a prediction after each."""

    def __init__(self, width: int, *, num_queries: int, num_layers: int, num_heads: int, ffn_width: int) -> None:
        super().__init__()
        self.width = width
        self.query_features = nn.Embedding(num_queries, width)
        self.query_positions = nn.Embedding(num_queries, width)
        # skip_first_layer_pe drops the residual too: right where queries are positions only, wrong for learned ones.
        self.blocks = nn.ModuleList(TwoWayAttentionBlock(width, num_heads, ffn_width) for _ in range(num_layers))
        self.last_attention = Attention(width, num_heads, downsample_rate=2)
        self.output_norm = nn.LayerNorm(width)
        self.mask_mlp = MLP(width, width, width, 3)

    def forward(self, multi_scale: list[Tensor], mask_features: Tensor) -> DecoderOutput:
        """Args: multi_scale: [p5, p4, p3] maps [B, W, ·, ·]; mask_features [B, W, h4, w4]."""
        features = multi_scale[LEVELS.index("p4")]
        image_positions = map_encoding(features, self.width)
        query_positions = self.query_positions.weight
        image = features.flatten(2).transpose(1, 2)  # [B, S, W]
        queries = self.query_features.weight.expand(len(image), -1, -1)
        points = []
        for block in self.blocks:
            queries, image = block(queries, image, query_positions, image_positions)
            attended = self.last_attention(q=queries + query_positions, k=image + image_positions, v=image)
            points.append(self.output_norm(queries + attended))

        embeddings = torch.stack(points if self.training else points[-1:])
        return DecoderOutput(embeddings, predict_masks(self.mask_mlp(embeddings), mask_features))
