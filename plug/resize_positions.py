"""SAM's encoder for another image size for good: its position tables resized once, and stored so."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from sam_common.errors import UserError
from sam_common.sam.image_encoder import PATCH_SIZE, ImageEncoder, WindowAttention


def resize_positions(encoder: ImageEncoder, size: int) -> None:
    """Resizes the tables of an encoder, in place, to images of size × size pixels.

    Absolute positions bilinearly, as PLUG does; relative positions linearly, and of global blocks only, since those of
    windows do not depend on the image. An encoder at its own size stays as it is.

    Raises:
        UserError: the size is no multiple of 16.
    """
    if size < PATCH_SIZE or size % PATCH_SIZE:
        raise UserError(f"an image size of {size} pixels does not fit SAM; give a multiple of {PATCH_SIZE}")
    grid = size // PATCH_SIZE
    encoder.img_size = size
    if encoder.pos_embed.shape[1] == grid:
        return
    table = F.interpolate(encoder.pos_embed.permute(0, 3, 1, 2), (grid, grid), mode="bilinear").permute(0, 2, 3, 1)
    encoder.pos_embed = _like(encoder.pos_embed, table)
    for block in encoder.blocks:
        if not isinstance(block.attn, WindowAttention):
            for name in ("rel_pos_h", "rel_pos_w"):
                positions = getattr(block.attn, name)
                resized = F.interpolate(positions.T[None], 2 * grid - 1, mode="linear")[0].T
                setattr(block.attn, name, _like(positions, resized))


def _like(parameter: nn.Parameter, value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().contiguous(), requires_grad=parameter.requires_grad)
