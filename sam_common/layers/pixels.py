"""The first step of every encoder: pixels brought to mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PixelNormalization(nn.Module):
    """RGB images [..., 3, H, W] in 0..255 -> (image - mean) / std.

    The two are buffers, so that they move with the model, and non-persistent: they are settings, in no checkpoint.

    Args:
        mean, std: of the three channels, in 0..255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it is, and with it the model that it is a part of."""
        return self.mean.device

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std
