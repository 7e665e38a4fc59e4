"""Normalised pixels; geometry between an image, its padded batch and masks at a stride."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sam_common.errors import UserError
from sam_common.layers.pixels import PixelNormalization, crop_and_resize, normalize_and_pad, pad


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    """Derived by hand; of uint8 pixels, of one image or of many."""
    normalize = PixelNormalization([10, 20, 30], [1, 2, 4])
    image = torch.tensor([12, 12, 12], dtype=torch.uint8).view(3, 1, 1)
    assert normalize(image).flatten().tolist() == [2, -4, -4.5]
    assert torch.equal(normalize(torch.stack([image, image]))[1], normalize(image))


@pytest.mark.parametrize(("mean", "std"), [([1, 2], [1, 2, 3]), ([1, 2, 3], [1, 0, 3])])
def test_settings_that_are_none(mean: list[int], std: list[int]) -> None:
    """Error: a channel too few, and a division by zero, of which every pixel would become infinite."""
    with pytest.raises(UserError, match=r"PIXEL_MEAN .* PIXEL_STD"):
        PixelNormalization(mean, std)


def test_it_moves_with_its_model_but_is_in_no_checkpoint() -> None:
    """The buffers go where the model goes, and no `state_dict` holds them."""
    model = torch.nn.Sequential(PixelNormalization([1.0] * 3, [1.0] * 3)).to("meta")
    assert model[0].device.type == "meta" and not model.state_dict()


def test_padding_is_zero_after_normalising() -> None:
    """Zeros are padded to the normalised image: black is not zero, padding is."""
    image = torch.full((3, 2, 2), 10, dtype=torch.uint8)
    batch = normalize_and_pad([image], lambda image: (image - 4) / 2, (4, 3))
    assert batch.shape == (1, 3, 4, 3)
    assert (batch[..., :2, :2] == 3).all()
    assert batch.sum() == 3 * 3 * 4


def test_masks_are_padded_with_false() -> None:
    """Boolean masks stay boolean."""
    padded = pad(torch.ones(2, 3, 3, dtype=torch.bool), (5, 4))
    assert padded.dtype == torch.bool and padded.sum() == 2 * 9


def test_without_padding_it_is_an_ordinary_resize() -> None:
    """Equal to `interpolate(bilinear, align_corners=False)`."""
    masks = torch.randn(5, 16, 24)
    ours = crop_and_resize(masks, (64, 96), (64, 96), (50, 70))
    torch.testing.assert_close(ours, F.interpolate(masks[None], (50, 70), mode="bilinear")[0], atol=1e-4, rtol=1e-4)


def test_padding_is_cropped_before_resizing() -> None:
    """Where the valid part is whole cells, it equals cropping them and resizing (but for the last half cell)."""
    masks = torch.randn(3, 16, 16)
    ours = crop_and_resize(masks, (32, 48), (64, 64), (32, 48))
    expected = F.interpolate(masks[None, :, :8, :12], (32, 48), mode="bilinear")[0]
    torch.testing.assert_close(ours[:, :-2, :-2], expected[:, :-2, :-2], atol=1e-4, rtol=1e-4)


def test_a_valid_part_that_is_no_multiple_of_the_stride_does_not_shift() -> None:
    """A linear ramp at stride 4 comes back as the same ramp in pixels of the image."""
    columns = torch.arange(16.0) * 4 + 2  # centre of each cell, in pixels
    masks = columns.expand(1, 16, 16)
    ours = crop_and_resize(masks, (50, 50), (64, 64), (50, 50))
    torch.testing.assert_close(ours[0, 20, 2:46], torch.arange(50.0)[2:46] + 0.5, atol=1e-3, rtol=0)
