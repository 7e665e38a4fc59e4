"""Fixed positions of the cells of a feature map."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cell_centres(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """[height·width, 2]: xy of each cell's centre, row-major, [0, 1] from edge to edge of the map."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def sine_encoding(points: Tensor, width: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines of each coordinate at width/4 frequencies (DETR, arXiv 2005.12872, appendix A.4).

    One place has one code, whatever the resolution of the map it lies on.

    Args:
        points: [..., 2], xy in [0, 1].
        width: channels of the code, a multiple of 4: one half tells y, the other x.

    Returns:
        [..., width].
    """
    steps = torch.arange(width // 4, device=points.device, dtype=points.dtype)
    frequencies = 2 * math.pi * temperature ** (-steps / (width // 4))
    phases = points.flip(-1).unsqueeze(-1) * frequencies  # [..., 2 (y, x), width/4]
    return torch.cat([phases.sin(), phases.cos()], dim=-1).flatten(-2)


def map_encoding(features: Tensor, width: int) -> Tensor:
    """[h·w, width]: the code of every cell of `features` [..., h, w]."""
    height, columns = features.shape[-2:]
    return sine_encoding(cell_centres(height, columns, features.device), width)
