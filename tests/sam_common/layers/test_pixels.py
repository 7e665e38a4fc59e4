"""Normalised pixels."""

from __future__ import annotations

import torch

from sam_common.layers.pixels import PixelNormalization


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    """Derived by hand; of uint8 pixels, of one image or of many."""
    normalize = PixelNormalization([10, 20, 30], [1, 2, 4])
    image = torch.tensor([12, 12, 12], dtype=torch.uint8).view(3, 1, 1)
    assert normalize(image).flatten().tolist() == [2, -4, -4.5]
    assert torch.equal(normalize(torch.stack([image, image]))[1], normalize(image))


def test_it_moves_with_its_model_but_is_in_no_checkpoint() -> None:
    """The buffers go where the model goes, and no `state_dict` holds them."""
    model = torch.nn.Sequential(PixelNormalization([1.0] * 3, [1.0] * 3)).to("meta")
    assert model[0].device.type == "meta" and not model.state_dict()
