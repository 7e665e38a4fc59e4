"""Open-vocabulary classification: cosine similarity of a mask embedding and the words of each class.

PosSAM (arXiv 2403.09620), Figure 3: LDP embedding · CLIP text embedding -> class logits [ours where the text is silent]

    z[q, c] = scale · max over the synonyms w of c of cos(G_q, t_w)        z[q, void] = scale · cos(G_q, void)

G: `mask_embeddings`, t: `text.embeddings`, void: a learnable vector appended to the text rows, scale: exp(s) with s
learnable, starting at log(1/0.07), exp(s) clamped to at most 100 (as CLIP does).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from possam.text_embeddings import ClassEmbeddings

MAX_SCALE = 100.0


def cosine_logits(mask_embeddings: Tensor, text: ClassEmbeddings, scale: Tensor | float) -> Tensor:
    """Scaled cosine similarities, the best synonym of each class. Computed in float32 under any autocast.

    Args:
        mask_embeddings: [..., Q, E], of any length.
        text: embeddings [S, E] of length 1 and their class indices [S].
        scale: temperature factor.

    Returns:
        [..., Q, C] logits.
    """
    with torch.autocast(mask_embeddings.device.type, enabled=False):
        similarities = F.normalize(mask_embeddings.float(), dim=-1) @ text.embeddings.T  # [..., Q, S]
    index = text.class_index.expand_as(similarities)
    best = similarities.new_full((*similarities.shape[:-1], text.num_classes), -1.0)
    return scale * best.scatter_reduce(-1, index, similarities, "amax", include_self=False)


class CosineClassifier(nn.Module):
    """Class logits with a learnable void row and temperature (769 parameters for 768 dimensions)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.void = nn.Parameter(torch.randn(embed_dim) * embed_dim**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, mask_embeddings: Tensor, text: ClassEmbeddings) -> Tensor:
        """[..., Q, E] mask embeddings -> [..., Q, C + 1] logits, void last."""
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        with torch.autocast(mask_embeddings.device.type, enabled=False):
            void = F.normalize(mask_embeddings.float(), dim=-1) @ F.normalize(self.void, dim=0)[:, None]  # [..., Q, 1]
        return torch.cat([cosine_logits(mask_embeddings, text, scale), scale * void], dim=-1)
