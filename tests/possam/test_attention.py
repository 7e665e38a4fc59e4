"""The attention layer against PyTorch's own, and the codes of positions."""

from __future__ import annotations

import math

import torch
from torch import nn

from possam.attention import Attention
from possam.position_encoding import cell_centres, map_encoding, sine_encoding


def test_attention_equals_pytorch():
    """Equal to nn.MultiheadAttention with the same weights, with a mask and without."""
    ours, theirs = Attention(16, num_heads=4), nn.MultiheadAttention(16, 4, batch_first=True)
    inputs = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        for linear in (*inputs, ours.output):
            nn.init.normal_(linear.bias)
        theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in inputs]))
        theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in inputs]))
    theirs.out_proj = ours.output
    queries, keys, values = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    allowed = torch.rand(2, 5, 7) > 0.5
    allowed[:, :, 0] = True
    torch.testing.assert_close(ours(queries, keys, values), theirs(queries, keys, values)[0])
    expected = theirs(queries, keys, values, attn_mask=~allowed.repeat_interleave(4, dim=0))[0]
    torch.testing.assert_close(ours(queries, keys, values, allowed), expected)


def test_cell_centres():
    """Row-major xy; two columns have centres at 1/4 and 3/4, one row at 1/2."""
    assert cell_centres(1, 2).tolist() == [[0.25, 0.5], [0.75, 0.5]]
    assert cell_centres(2, 1).tolist() == [[0.5, 0.25], [0.5, 0.75]]


def test_sine_encoding_by_hand():
    """Width 8: y first, then x; each two sines, then two cosines, at frequencies 2π and 2π/√10000 = 2π/100."""
    x, y = 0.25, 0.5
    expected = [f(2 * math.pi * p / scale) for p in (y, x) for f in (math.sin, math.cos) for scale in (1, 100)]
    torch.testing.assert_close(sine_encoding(torch.tensor([x, y]), 8), torch.tensor(expected))


def test_one_place_one_code():
    """The centre of a 3×3 map and the centre of a 1×1 map are one place."""
    torch.testing.assert_close(map_encoding(torch.empty(5, 3, 3), 8)[4], map_encoding(torch.empty(2, 5, 1, 1), 8)[0])
