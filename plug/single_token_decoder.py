"""SAM's mask decoder with one mask token, which answers each image's own prompts: a batch of images in one pass.

PLUG, Section 3: D_v and D_a begin as SAM's pretrained decoder, of whose four mask tokens the first is kept, with its
hyper-network and its row of the IoU head. segment-anything's decoder takes the prompts of one image at a time; here
image b is answered by prompt b.
"""

from __future__ import annotations

import copy

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn


class SingleTokenDecoder(nn.Module):
    """Mask logits of one prompt for each image. Parameter names are segment-anything's.

    Args:
        pretrained: the decoder it starts from; copied, so it stays as it is.
    """

    def __init__(self, pretrained: MaskDecoder) -> None:
        super().__init__()
        decoder = copy.deepcopy(pretrained)
        width = decoder.transformer_dim
        self.transformer = decoder.transformer
        self.iou_token = decoder.iou_token
        self.mask_tokens = nn.Embedding(1, width)
        self.output_upscaling = decoder.output_upscaling
        self.output_hypernetworks_mlps = decoder.output_hypernetworks_mlps[:1]
        # Never trained, since PLUG predicts no quality: it is kept for what its parameters count, as in the paper.
        self.iou_prediction_head = decoder.iou_prediction_head
        last = self.iou_prediction_head.layers[-1]
        first_row = nn.Linear(last.in_features, 1)
        with torch.no_grad():
            self.mask_tokens.weight.copy_(decoder.mask_tokens.weight[:1])
            first_row.weight.copy_(last.weight[:1])
            first_row.bias.copy_(last.bias[:1])
        self.iou_prediction_head.layers[-1] = first_row

    def forward(self, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
        """[B, 1, 4·h, 4·w] mask logits.

        Args:
            image_embeddings: [B, C, h, w].
            image_pe: [1, C, h, w], the prompt encoder's dense positions.
            sparse: [B, P, C] prompts, the P of image b in row b.
            dense: [B, C, h, w].
        """
        batch = len(image_embeddings)
        output_tokens = torch.cat((self.iou_token.weight, self.mask_tokens.weight)).expand(batch, -1, -1)
        tokens = torch.cat((output_tokens, sparse), dim=1)
        source = image_embeddings + dense
        decoded, source_out = self.transformer(source, image_pe.expand(batch, -1, -1, -1), tokens)
        upscaled = self.output_upscaling(source_out.mT.reshape(source.shape))
        weights = self.output_hypernetworks_mlps[0](decoded[:, 1])  # [B, C / 8]
        return torch.einsum("bc,bchw->bhw", weights, upscaled)[:, None]
