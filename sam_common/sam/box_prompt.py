"""Masks from boxes with SAM: of one picture, and for batches of images of any size, which is differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam_common.data.images import fit_size, resize_image
from sam_common.layers.pixels import PixelNormalization, crop_and_resize, normalize_and_pad
from sam_common.sam.build import Sam
from sam_common.structures import Vocabulary


class BoxPromptedSam(nn.Module):
    """SAM as it is, asked by boxes: what a method is compared with answers from its masks.

    Args:
        sam: any size; frozen.
        pixels: mean and std (0..255, RGB).
    """

    def __init__(self, sam: Sam, *, pixels: tuple[Sequence[float], Sequence[float]]) -> None:
        super().__init__()
        self.sam = sam.requires_grad_(False)
        self.training_vocabulary: Vocabulary = ()
        self.normalize = PixelNormalization(*pixels)

    def masks(self, image: Tensor, boxes: Tensor) -> tuple[list[Tensor], Tensor]:
        """Asks SAM as it was trained: the image's longer side resized to that of SAM's own images, the rest padded.

        Args:
            image: [3, H, W] uint8 RGB.
            boxes: [n, 4] XYXY in its pixels, n at least 1, on SAM's device.

        Returns:
            n masks [H, W] bool, a pixel belonging to them from logit 0 on, SAM's own threshold; and predicted IoU [n].
        """
        side = self.sam.image_encoder.img_size
        original = (image.shape[1], image.shape[2])
        resized, padded = fit_size(original, side), (side, side)
        scale = boxes.new_tensor([resized[1] / original[1], resized[0] / original[0]]).repeat(2)
        batch = normalize_and_pad([resize_image(image.to(boxes.device), resized)], self.normalize, padded)
        logits, quality = predict_masks_from_boxes(self.sam, batch, [boxes * scale])
        masks = [crop_and_resize(of_box, resized, padded, original)[0] > 0 for of_box in logits.float()]
        return masks, quality[:, 0].float()


def predict_masks_from_boxes(
    sam: Sam, images: Tensor, boxes: Sequence[Tensor], *, multimask: bool = False
) -> tuple[Tensor, Tensor]:
    """Predicts the mask of each box. N is the number of boxes of the whole batch, at least one.

    Args:
        sam: any size.
        images: [B, 3, H, W], normalised with SAM's mean and standard deviation, H and W multiples of 16.
        boxes: per image [n, 4] XYXY in pixels of `images`; n may be zero.
        multimask: three masks of different extent for each box instead of one.

    Returns:
        mask logits [N, 1 or 3, H / 4, W / 4] and predicted IoU [N, 1 or 3] (a regression, not bounded to [0, 1]), the
        boxes of the first image first.
    """
    prompt_encoder = sam.prompt_encoder.at(*images.shape[-2:])
    image_embeddings = sam.image_encoder(images)
    sparse, dense = prompt_encoder(points=None, boxes=torch.cat(list(boxes)), masks=None)
    # The mask decoder adds the dense embeddings of its prompts to the embedding of one image. Prompts of several images
    # go through in one call when each brings its own image's embedding along, and the one image is zero.
    counts = torch.tensor([len(of_image) for of_image in boxes], device=images.device)
    dense = dense + image_embeddings.repeat_interleave(counts, dim=0)
    return sam.mask_decoder(
        image_embeddings=torch.zeros_like(image_embeddings[:1]),
        image_pe=prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )
