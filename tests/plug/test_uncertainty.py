"""The uncertainty map against its definition."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from plug.uncertainty import entropy, uncertainty


def brute_force(logits: Tensor, epsilon: int) -> Tensor:
    """Eq. 8, pixel by pixel."""
    height, width = logits.shape[-2:]
    values, out = entropy(logits)[0, 0], torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            rows = slice(max(y - epsilon + 1, 0), y + epsilon)
            columns = slice(max(x - epsilon + 1, 0), x + epsilon)
            out[y, x] = values[rows, columns].sum() / (2 * epsilon - 1) ** 2
    return out


def test_entropy_is_that_of_the_probability() -> None:
    """-p log p - (1 - p) log(1 - p) where that can be computed; log 2 at 0; finite, with its gradient, at ±100."""
    logits = torch.linspace(-12, 12, 49, dtype=torch.float64)
    p = logits.sigmoid()
    torch.testing.assert_close(entropy(logits), -p * p.log() - (1 - p) * (1 - p).log())
    assert math.isclose(float(entropy(torch.zeros(()))), math.log(2), rel_tol=1e-6)
    extreme = torch.tensor([-100.0, 100.0], requires_grad=True)
    value = entropy(extreme)
    value.sum().backward()
    assert (value.abs() < 1e-6).all() and extreme.grad is not None and extreme.grad.isfinite().all()


def test_uncertainty_is_the_mean_over_its_window() -> None:
    """Equal to a loop over pixels, at the border (zeros outside, the divisor stays) and for other window sizes."""
    logits = 3 * torch.randn(1, 1, 9, 7)
    for epsilon in (1, 2, 3):
        torch.testing.assert_close(uncertainty(logits, epsilon=epsilon)[0, 0], brute_force(logits, epsilon))
