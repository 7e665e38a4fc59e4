"""Mask calibration: what a mask is, from the decoder's upscaled image embedding and each class's weights.

AM-SAM, Section 3.2, Eq. 9-12. For image i of a batch of b, with c channels,

    R_i = Û_i ∘ Ĥ_i                        the products that SAM would sum to a mask        (9)
    M_orig = Σ_c R                         SAM's own mask                                   (10)
    M̄ = 1 / (b c) · Σ_{b, c} R             their mean over batch and channels               (11)
    M_final = α M_orig + (1 - α) M̄         α = 0.7                                          (12)

    Û -> features [B, c, H, W]    Ĥ -> class_weights [B, K+1, c]    M -> logits [B, K+1, H, W]

Since M_orig is Σ_c R, M̄ is the batch mean of M_orig divided by c: no R need be made. So at batch 1 the published
calibration multiplies the logits by α + (1 - α) / c, 0.709375 for c = 32: a temperature, which moves no argmax. At a
greater batch, Eq. 11 as printed adds masks of other images. [ours] What a model does is one of these modules.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

ALPHA = 0.7


def original_logits(features: Tensor, class_weights: Tensor) -> Tensor:
    """Eq. 10: features [B, c, H, W] and class_weights [B, K+1, c] -> logits [B, K+1, H, W]."""
    return torch.einsum("bkc,bchw->bkhw", class_weights, features)


def calibrate_per_sample(logits: Tensor, channels: int, alpha: float = ALPHA) -> Tensor:
    """Eq. 12 where each image is a batch of its own: logits of any shape, scaled."""
    return (alpha + (1 - alpha) / channels) * logits


def calibrate_batch_mean(logits: Tensor, channels: int, alpha: float = ALPHA) -> Tensor:
    """Eq. 11-12 to the letter: logits [B, K+1, H, W], each mixed with the mean of all B."""
    return alpha * logits + (1 - alpha) / channels * logits.mean(0, keepdim=True)


class NoCalibration(nn.Module):
    """SAM's own logits. Every module here: features [B, c, H, W], class_weights [B, K+1, c] -> [B, K+1, H, W]."""

    def forward(self, features: Tensor, class_weights: Tensor) -> Tensor:
        return original_logits(features, class_weights)


class PerSampleCalibration(nn.Module):
    """The paper's calibration at its batch of 1, at any batch."""

    def __init__(self, alpha: float = ALPHA) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, features: Tensor, class_weights: Tensor) -> Tensor:
        return calibrate_per_sample(original_logits(features, class_weights), features.shape[1], self.alpha)


class BatchMeanCalibration(PerSampleCalibration):
    """Eq. 11 as printed in training, where it mixes the images of a batch; an image by itself in evaluation."""

    def __init__(self, alpha: float = ALPHA) -> None:
        super().__init__(alpha)
        warnings.warn("calibration batch_mean mixes the masks of a batch's images in training", stacklevel=2)

    def forward(self, features: Tensor, class_weights: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features, class_weights)
        return calibrate_batch_mean(original_logits(features, class_weights), features.shape[1], self.alpha)


class LearnedCalibration(nn.Module):
    """Σ_c w_c Û_c Ĥ_c with a learned weight for each channel: [ours], the calibration that adds capacity.

    It starts as the paper's, w_c = α + (1 - α) / c.
    """

    def __init__(self, channels: int, alpha: float = ALPHA) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), alpha + (1 - alpha) / channels))

    def forward(self, features: Tensor, class_weights: Tensor) -> Tensor:
        return original_logits(features, class_weights * self.weight)
