"""Feature pyramid: strides and content of each level, and the stand-in's agreement in shape."""

from __future__ import annotations

import pytest
import torch

from possam.feature_pyramid import FeaturePyramid, ResizedFeatures


@pytest.mark.parametrize("pyramid", [FeaturePyramid(8), ResizedFeatures()])
def test_strides(pyramid):
    """Sizes follow the strides for any map, not only squares; an odd side is rounded up at stride 32."""
    levels = pyramid(torch.randn(2, 8, 6, 5))
    shapes = {name: tuple(level.shape) for name, level in levels.items()}
    assert shapes == {"p2": (2, 8, 24, 20), "p3": (2, 8, 12, 10), "p4": (2, 8, 6, 5), "p5": (2, 8, 3, 3)}


def test_levels_by_their_definition():
    """p4 is the input; a cell of p3 is one 2×2 block that depends on its parent alone."""
    pyramid = FeaturePyramid(8)
    x = torch.randn(1, 8, 4, 4)
    levels = pyramid(x)
    assert levels["p4"] is x
    expected = torch.einsum("c,cdij->dij", x[0, :, 1, 2], pyramid.p3.weight) + pyramid.p3.bias[:, None, None]
    torch.testing.assert_close(levels["p3"][0, :, 2:4, 4:6], expected)


def test_stand_in_keeps_values():
    """Resizing: a constant stays, a map's mean stays, and p4 is the input."""
    x = torch.rand(1, 1, 4, 4) + torch.tensor([5.0]).view(1, 1, 1, 1)
    levels = ResizedFeatures()(x)
    torch.testing.assert_close(levels["p4"], x)
    torch.testing.assert_close(levels["p5"].mean(), x.mean())  # 2×2 means
    assert all(x.min() <= level.min() and level.max() <= x.max() for level in levels.values())
