"""IoU head: how well does each query's mask fit, told from its embedding.

PosSAM (arXiv 2403.09620), Section 3 and Figure 3:  p_iou = sigmoid(MLP(LN(q)))  with three layers, W -> W -> W -> 1.
LN(q) -> query_embeddings; the LayerNorm is the decoder's shared output norm.
"""

from __future__ import annotations

from segment_anything.modeling.mask_decoder import MLP
from torch import Tensor, nn


class IoUHead(nn.Module):
    """query_embeddings [..., Q, W] -> predicted IoU [..., Q] in [0, 1]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = MLP(width, width, 1, 3)

    def forward(self, query_embeddings: Tensor) -> Tensor:
        return self.mlp(query_embeddings).squeeze(-1).sigmoid()


class PerfectIoU(nn.Module):
    """The stand-in when the IoU head is off (Table 4): every mask counts as perfect; there is nothing to learn."""

    def forward(self, query_embeddings: Tensor) -> Tensor:
        return query_embeddings.new_ones(query_embeddings.shape[:-1])
