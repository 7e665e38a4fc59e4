"""From images of any size to one normalised batch, and masks back to the size of the original image.

Shapes: B images, [3, h, w] each, padded at the bottom and right to one [H, W]; masks at stride s are [H/s, W/s].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sam_common.errors import UserError


class PixelNormalization(nn.Module):
    """RGB images [..., 3, H, W] in 0..255 -> (image - mean) / std.

    The two are buffers, so that they move with the model, and non-persistent: they are settings, in no checkpoint.

    Args:
        mean, std: of the three channels, in 0..255.

    Raises:
        UserError: there are not three of each, or one has no deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not len(mean) == len(std) == 3 or min(std) <= 0:
            raise UserError(f"PIXEL_MEAN {mean} and PIXEL_STD {std} must be three numbers each, these above 0")
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where it is, and with it the model that it is a part of."""
        return self.mean.device

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


def normalize_and_pad(images: Sequence[Tensor], normalize: Callable[[Tensor], Tensor], size: tuple[int, int]) -> Tensor:
    """uint8 images [3, h, w] -> float batch [B, 3, H, W]; zeros are padded *after* normalising.

    Args:
        images: RGB, 0..255, each at most `size`.
        normalize: a `PixelNormalization`.
        size: (H, W).
    """
    return torch.stack([pad(normalize(image), size) for image in images])


def pad(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Pads the last two dimensions with zeros (False) at the bottom and right up to `size`."""
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, size[1] - width, 0, size[0] - height))


def crop_and_resize(masks: Tensor, valid: tuple[int, int], padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Crops the padding from masks at any stride and resizes the rest to the original image, in one bilinear step.

    Equals `interpolate(align_corners=False)` where nothing was padded. Cropping whole cells would shift masks by up
    to a stride where `valid` is no multiple of it, so the crop is done in continuous coordinates.

    Args:
        masks: [Q, H/s, W/s] logits.
        valid: (h, w) of the image inside the padded one.
        padded: (H, W).
        size: (height, width) to return.

    Returns:
        [Q, height, width] logits.
    """
    ys = (torch.arange(size[0], device=masks.device, dtype=masks.dtype) + 0.5) / size[0] * valid[0] / padded[0]
    xs = (torch.arange(size[1], device=masks.device, dtype=masks.dtype) + 0.5) / size[1] * valid[1] / padded[1]
    grid = torch.stack(torch.meshgrid(xs * 2 - 1, ys * 2 - 1, indexing="xy"), dim=-1)  # [height, width, 2] xy
    return F.grid_sample(masks[None], grid[None], padding_mode="border", align_corners=False)[0]
