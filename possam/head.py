"""PosSAM's head: from a pyramid of feature maps, CLIP's features and words to masks and their classes (Figure 3).

PosSAM (arXiv 2403.09620), Section 3. It is the part that trains, apart from the pyramid, and takes any backbone's maps.

    features -> pixel decoder -> masked transformer decoder -> queries, masks
    queries -> IoU head -> p_iou
    queries, masks, CLIP's features -> LDP -> mask embeddings; mask embeddings · text -> class logits

Shapes: B images, Q queries, P prediction points (decoder layers + 1 in training, 1 otherwise), C classes, E the
dimension of CLIP's embedding, h4 = H/4, w4 = W/4 of the padded image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from possam.classifier import CosineClassifier
from possam.criterion import Predictions
from possam.local_discriminative_pooling import PoolingInputs, masked_average_pool
from possam.text_embeddings import ClassEmbeddings


class PosSAMHead(nn.Module):
    """Args: the parts above; `pooling` is LDP or one of Table 5's alternatives."""

    def __init__(
        self,
        pixel_decoder: nn.Module,
        decoder: nn.Module,
        *,
        iou_head: nn.Module,
        pooling: nn.Module,
        classifier: CosineClassifier,
    ) -> None:
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.decoder = decoder
        self.iou_head = iou_head
        self.pooling = pooling
        self.classifier = classifier

    def forward(
        self,
        features: dict[str, Tensor],
        *,
        clip_features: Tensor,
        project: Callable[[Tensor], Tensor],
        text: ClassEmbeddings,
    ) -> tuple[list[Predictions], Tensor]:
        """Predictions at every prediction point, and CLIP's own embeddings [B, Q, E] of the last masks.

        Args:
            features: "p2" … "p5" -> [B, in_channels, H/2^k, W/2^k].
            clip_features: [B, C', H/32, W/32] (any grid) of CLIP's image tower.
            project: CLIP's projection of pooled features, [B, Q, C'] -> [B, Q, E].
            text: the classes to find.
        """
        mask_features, multi_scale = self.pixel_decoder(features)
        decoded = self.decoder(multi_scale, mask_features)
        predictions = []
        for queries, mask_logits in zip(decoded.query_embeddings, decoded.mask_logits, strict=True):
            with torch.no_grad():
                clip_embeddings = project(masked_average_pool(clip_features, mask_logits))
            given = PoolingInputs(queries, mask_logits, mask_features, clip_features, clip_embeddings)
            mask_embeddings = self.pooling(given)
            class_logits = self.classifier(mask_embeddings, text)
            predictions.append(Predictions(class_logits, mask_logits, self.iou_head(queries)))
        return predictions, clip_embeddings
