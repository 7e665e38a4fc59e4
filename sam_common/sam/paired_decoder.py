"""SAM's mask decoder for batches in which each image has its own prompts, and for any number of masks.

segment-anything's decoder answers many prompts of one image. Here image b is answered by the prompts of row b, all
images in one pass. Of SAM's four mask tokens the first is the one for a single mask; what is kept begins as it.
"""

from __future__ import annotations

import copy

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn


class PairedDecoder(nn.Module):
    """Mask logits of each image's own prompts. Parameter names are segment-anything's.

    Args:
        pretrained: the decoder it starts from; copied, so it stays as it is.
        num_masks: M, how many masks each image gets. All of them begin as SAM's single mask: its token, its
            hyper-network and its row of the IoU head.
    """

    def __init__(self, pretrained: MaskDecoder, num_masks: int = 1) -> None:
        super().__init__()
        decoder = copy.deepcopy(pretrained)
        self.transformer = decoder.transformer
        self.iou_token = decoder.iou_token
        self.mask_tokens = nn.Embedding(num_masks, decoder.transformer_dim)
        self.output_upscaling = decoder.output_upscaling
        first = decoder.output_hypernetworks_mlps[0]
        self.output_hypernetworks_mlps = nn.ModuleList(copy.deepcopy(first) for _ in range(num_masks))
        # Nothing here asks for a mask's quality. The head is kept for what its parameters count, as in the papers.
        self.iou_prediction_head = decoder.iou_prediction_head
        last = self.iou_prediction_head.layers[-1]
        rows = nn.Linear(last.in_features, num_masks)
        with torch.no_grad():
            self.mask_tokens.weight.copy_(decoder.mask_tokens.weight[:1].expand(num_masks, -1))
            rows.weight.copy_(last.weight[:1].expand(num_masks, -1))
            rows.bias.copy_(last.bias[:1].expand(num_masks))
        self.iou_prediction_head.layers[-1] = rows

    def forward(self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
        """[B, M, 4·h, 4·w] mask logits; for the arguments see `decode`."""
        features, weights = self.decode(image_embeddings, image_pe, sparse, dense)
        return torch.einsum("bmc,bchw->bmhw", weights, features)

    def decode(
        self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What masks are products of.

        Args:
            image_embeddings: [B, C, h, w].
            image_pe: [1, C, h, w], the prompt encoder's dense positions.
            sparse: [B, P, C] prompts, the P of image b in row b.
            dense: [B, C, h, w].

        Returns:
            features [B, C / 8, 4·h, 4·w] and, for each mask, their weights [B, M, C / 8].
        """
        output_tokens = torch.cat((self.iou_token.weight, self.mask_tokens.weight)).expand(len(sparse), -1, -1)
        source = image_embeddings + dense
        positions = image_pe.expand(len(source), -1, -1, -1)
        decoded, source_out = self.transformer(source, positions, torch.cat((output_tokens, sparse), dim=1))
        features = self.output_upscaling(source_out.mT.reshape(source.shape))
        weights = [mlp(decoded[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)]
        return features, torch.stack(weights, dim=1)
