"""SAM's two-way decoder behind the masked decoder's interface."""

from __future__ import annotations

import pytest
import torch

from possam.two_way_decoder import TwoWayDecoder


@pytest.mark.parametrize("blocks", [1, 9])
def test_every_block_predicts(blocks):
    """One prediction point per block in training; eval mode gives the last of them."""
    maps = [torch.randn(2, 32, s, s) for s in (2, 4, 8)]
    mask_features = torch.randn(2, 32, 16, 16)
    decoder = TwoWayDecoder(32, num_queries=5, num_layers=blocks, num_heads=4, ffn_width=64)
    training = decoder(maps, mask_features)
    assert training.mask_logits.shape == (blocks, 2, 5, 16, 16)
    assert training.query_embeddings.shape == (blocks, 2, 5, 32)
    expected = torch.einsum("pbqc,bchw->pbqhw", decoder.mask_mlp(training.query_embeddings), mask_features)
    torch.testing.assert_close(training.mask_logits, expected)
    torch.testing.assert_close(decoder.eval()(maps, mask_features).mask_logits, training.mask_logits[-1:])


def test_attends_to_stride_16_only():
    """Of the three maps only p4 matters; the learned queries see the image in the very first block."""
    maps = [torch.randn(1, 32, s, s, requires_grad=True) for s in (2, 4, 8)]
    decoder = TwoWayDecoder(32, num_queries=5, num_layers=1, num_heads=4, ffn_width=64)
    decoder(maps, torch.randn(1, 32, 16, 16)).query_embeddings.square().sum().backward()
    assert maps[0].grad is None and maps[2].grad is None
    assert maps[1].grad.abs().sum() > 0
