"""The four calibrations against the equations as printed."""

from __future__ import annotations

import pytest
import torch

from amsam.mask_calibration import (
    BatchMeanCalibration,
    LearnedCalibration,
    NoCalibration,
    PerSampleCalibration,
    original_logits,
)


def literal(features: torch.Tensor, class_weights: torch.Tensor, alpha: float) -> torch.Tensor:
    """Eq. 9-12 as loops over images, classes and channels, with every R made."""
    batch, channels = features.shape[:2]
    out = torch.empty(batch, class_weights.shape[1], *features.shape[2:], dtype=features.dtype)
    for k in range(class_weights.shape[1]):
        r = [[class_weights[i, k, c] * features[i, c] for c in range(channels)] for i in range(batch)]
        mean = sum(sum(of_image) for of_image in r) / (batch * channels)
        for i in range(batch):
            out[i, k] = alpha * sum(r[i]) + (1 - alpha) * mean
    return out


def random(batch: int, channels: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, channels, 3, 4, generator=generator, dtype=torch.float64)
    return features, torch.randn(batch, 2, channels, generator=generator, dtype=torch.float64)


def test_at_batch_one_the_paper_scales_the_logits() -> None:
    """0.709375 · M_orig for 32 channels and α = 0.7, and so say the literal equations; at any batch, image by image."""
    features, weights = random(3)
    calibrated = PerSampleCalibration()(features, weights)
    torch.testing.assert_close(calibrated, 0.709375 * original_logits(features, weights))
    for i in range(3):
        torch.testing.assert_close(calibrated[i : i + 1], literal(features[i : i + 1], weights[i : i + 1], 0.7))


def test_the_batch_mean_is_the_printed_equation() -> None:
    """In training, equal to the loops over a batch of 3; in evaluation an image stands for itself; it warns."""
    features, weights = random(3)
    with pytest.warns(UserWarning, match="mixes"):
        module = BatchMeanCalibration(0.6)
    torch.testing.assert_close(module.train()(features, weights), literal(features, weights, 0.6))
    torch.testing.assert_close(module.eval()(features, weights), PerSampleCalibration(0.6)(features, weights))


def test_the_learned_one_begins_as_the_papers_and_weighs_channels() -> None:
    """Σ_c w_c Û_c Ĥ_c; with w = 0 but for one channel, that channel's product alone."""
    features, weights = random(2)
    module = LearnedCalibration(32).double()
    torch.testing.assert_close(module(features, weights), PerSampleCalibration()(features, weights), rtol=1e-6, atol=0)
    with torch.no_grad():
        module.weight.zero_()
        module.weight[5] = 2
    torch.testing.assert_close(module(features, weights), 2 * weights[:, :, 5, None, None] * features[:, None, 5])


def test_off_is_sam() -> None:
    """Σ_c Û_c Ĥ_c, written as a matrix product."""
    features, weights = random(2)
    expected = (weights @ features.flatten(2)).view(2, 2, 3, 4)
    torch.testing.assert_close(NoCalibration()(features, weights), expected)
