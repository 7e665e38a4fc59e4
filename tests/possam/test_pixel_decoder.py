"""Pixel decoder: order of the levels, alignment of places across levels, the stride-4 path."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from possam.pixel_decoder import DeformableEncoderLayer, PixelDecoder
from possam.position_encoding import cell_centres, sine_encoding


def pyramid(channels=16, batch=2, h=4, w=6):
    """Random maps at strides 32 (h/2 × w/2), 16, 8 and 4."""
    sizes = {"p2": (4 * h, 4 * w), "p3": (2 * h, 2 * w), "p4": (h, w), "p5": (h // 2, w // 2)}
    return {name: torch.randn(batch, channels, *size) for name, size in sizes.items()}


@pytest.mark.parametrize("width", [64, 96])
def test_sizes_and_batch(width):
    """Widths of size T work, maps come coarse to fine, and an image's result does not depend on its batch."""
    features = pyramid()
    decoder = PixelDecoder(16, width, num_layers=2, ffn_width=32)
    mask_features, maps = decoder(features)
    assert mask_features.shape == (2, width, 16, 24)
    assert [tuple(x.shape) for x in maps] == [(2, width, 2, 3), (2, width, 4, 6), (2, width, 8, 12)]
    alone, _ = decoder({name: level[1:] for name, level in features.items()})
    torch.testing.assert_close(alone, mask_features[1:], atol=1e-5, rtol=1e-4)


def test_without_layers():
    """With no attention layer the maps are the projections, and the mask features follow the header's formula."""
    features = pyramid()
    decoder = PixelDecoder(16, 32, num_layers=0)
    mask_features, maps = decoder(features)
    for name, result in zip(("p5", "p4", "p3"), maps, strict=True):
        torch.testing.assert_close(result, decoder.projections[name](features[name]))
    up = F.interpolate(maps[2], scale_factor=2, mode="bilinear")
    expected = decoder.mask_projection(decoder.smooth(decoder.lateral(features["p2"]) + up))
    torch.testing.assert_close(mask_features, expected)


def test_layer_equation():
    """One layer by its definition: attention queried with sine + level embedding, added, normalised; then the FFN."""
    features = pyramid()
    decoder = PixelDecoder(16, 32, num_layers=1, ffn_width=16)
    layer = decoder.layers[0]
    torch.nn.init.normal_(layer.attention.offsets.weight)  # zero at the start, which would hide the positions
    torch.nn.init.normal_(layer.attention.weights.weight)
    shapes = [(2, 3), (4, 6), (8, 12)]
    inputs = [decoder.projections[name](features[name]).flatten(2).mT for name in ("p5", "p4", "p3")]
    centres = [cell_centres(h, w) for h, w in shapes]
    positions = [sine_encoding(p, 32) + e for p, e in zip(centres, decoder.level_embeddings.weight, strict=True)]
    tokens = torch.cat(inputs, dim=1)
    attended = layer.attention(tokens + torch.cat(positions), torch.cat(centres), tokens, shapes)
    tokens = layer.norm1(tokens + attended)
    expected = layer.norm2(tokens + layer.ffn(tokens))
    _, maps = decoder(features)
    torch.testing.assert_close(torch.cat([x.flatten(2).mT for x in maps], dim=1), expected)


def test_layer_looks_around_its_own_place():
    """A change at one place of the 16×16 map reaches, at the start of training, only places up to 5 cells from it.

    At the start each token looks up to 4 cells away, bilinearly. Swapped x and y or levels would move the touched area.
    """
    shapes = [(4, 4), (8, 8), (16, 16)]
    layer = DeformableEncoderLayer(32, num_heads=8, num_points=4, ffn_width=16)
    centres = torch.cat([cell_centres(h, w) for h, w in shapes])
    tokens, positions = torch.randn(1, len(centres), 32), torch.zeros(len(centres), 32)
    changed = 16 + 64 + 3 * 16 + 12  # row 3, column 12 of the finest map
    moved = tokens.clone()
    moved[:, changed] += 1.0
    difference = (layer(moved, positions, centres, shapes) - layer(tokens, positions, centres, shapes)).abs().sum(-1)[0]
    touched = difference > 1e-6
    distance = (centres - centres[changed]).abs().amax(-1)
    assert touched[changed]
    assert distance[touched].max() <= 5 / 16
    assert touched[:16].any() and touched[16:80].any()  # coarse tokens look at the fine map too
