"""Masked transformer decoder: its masks, its cycle, its prediction points and what its gradient reaches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from possam.masked_transformer_decoder import MaskedTransformerDecoder, attention_mask

WIDTH, QUERIES = 32, 6


@pytest.fixture
def maps():
    """[p5, p4, p3] and mask features of two images."""
    sizes = [(2, 3), (4, 6), (8, 12)]
    return [torch.randn(2, WIDTH, *size) for size in sizes], torch.randn(2, WIDTH, 16, 24)


def build(num_layers=4):
    return MaskedTransformerDecoder(WIDTH, num_queries=QUERIES, num_layers=num_layers, num_heads=4, ffn_width=64)


def test_attention_mask_by_hand():
    """Inside is logit ≥ 0; the second query, negative everywhere, may look everywhere."""
    embeddings = torch.tensor([[[1.0], [-1.0]]])
    features = torch.tensor([[[2.0, 0.0, -1.0]]])
    assert attention_mask(embeddings, features).tolist() == [[[True, True, False], [False, True, True]]]
    assert attention_mask(embeddings, features.abs() + 1).tolist() == [[[True] * 3, [True] * 3]]


def test_equals_plain_mask2former(maps):
    """Equal to the textbook loop that predicts full masks after every layer and resizes those, level by level."""
    multi_scale, mask_features = maps
    decoder = build()
    output = decoder(multi_scale, mask_features)
    queries = decoder.query_features.weight.expand(2, -1, -1)
    for point in range(5):
        normed = decoder.output_norm(queries)
        logits = torch.einsum("bqc,bchw->bqhw", decoder.mask_mlp(normed), mask_features)
        torch.testing.assert_close(output.query_embeddings[point], normed, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(output.mask_logits[point], logits, atol=1e-3, rtol=1e-4)
        if point < 4:
            level = point % 3  # p5, p4, p3, p5
            features = multi_scale[level]
            inside = F.interpolate(logits, features.shape[-2:], mode="bilinear").flatten(2) >= 0
            inside[~inside.any(-1)] = True
            memory = features.flatten(2).transpose(1, 2) + decoder.level_embeddings.weight[level]
            positions = decoder_positions(*features.shape[-2:])
            queries = decoder.layers[point](queries, decoder.query_positions.weight, memory, positions, inside)


def decoder_positions(height, width):
    """Sine code of the cell centres, written out."""
    frequencies = 2 * torch.pi / 10000 ** (torch.arange(WIDTH // 4) / (WIDTH // 4))
    y = (torch.arange(height) + 0.5).div(height)[:, None, None].expand(-1, width, 1) * frequencies
    x = (torch.arange(width) + 0.5).div(width)[None, :, None].expand(height, -1, 1) * frequencies
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], dim=-1).flatten(0, 1)


def test_evaluation_is_the_last_training_point(maps):
    """Eval mode returns the final prediction alone, and it is the same one."""
    decoder = build()
    training = decoder(*maps)
    final = decoder.eval()(*maps)
    assert final.mask_logits.shape == (1, 2, QUERIES, 16, 24)
    torch.testing.assert_close(final.mask_logits, training.mask_logits[-1:])
    torch.testing.assert_close(final.query_embeddings, training.query_embeddings[-1:])


def test_first_point_has_not_seen_the_image(maps):
    """Prediction point 0 is the learned queries: the same for every image; later points are not."""
    embeddings = build()(*maps).query_embeddings
    assert torch.equal(embeddings[0, 0], embeddings[0, 1])
    assert not torch.allclose(embeddings[1, 0], embeddings[1, 1])


def test_gradient_paths(maps):
    """The attention mask carries no gradient: embeddings alone move neither mask MLP nor mask features. Masks do."""
    multi_scale, mask_features = maps
    mask_features.requires_grad_()
    decoder = build()
    output = decoder(multi_scale, mask_features)
    output.query_embeddings.square().sum().backward(retain_graph=True)
    assert mask_features.grad is None
    assert all(parameter.grad is None for parameter in decoder.mask_mlp.parameters())
    output.mask_logits.square().sum().backward()
    assert mask_features.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in decoder.parameters())


def test_empty_masks_stay_finite(maps):
    """Mask features whose logits are negative for every query unmask every row: finite output, finite gradient."""
    multi_scale, mask_features = maps
    decoder = build()
    with torch.no_grad():
        decoder.mask_mlp.layers[-1].weight.zero_()
        decoder.mask_mlp.layers[-1].bias.fill_(-1.0)
    output = decoder(multi_scale, mask_features.abs())
    assert (output.mask_logits < 0).all()
    output.mask_logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())
