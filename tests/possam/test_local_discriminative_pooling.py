"""Mask pooling and the four poolings: equations by hand, invariants, gradients, empty and tiny masks."""

from __future__ import annotations

import pytest
import torch

from possam.local_discriminative_pooling import (
    ClipMaskPooling,
    CrossAttentionPooling,
    LocalDiscriminativePooling,
    PoolingInputs,
    SamMaskPooling,
    binary_masks,
    masked_average_pool,
)

WIDTH, EMBED, CLIP_CHANNELS, QUERIES = 16, 24, 12, 5
POOLINGS = [LocalDiscriminativePooling, SamMaskPooling, ClipMaskPooling, CrossAttentionPooling]


def arguments():
    """Random inputs of a pooling by name; every tensor asks for a gradient."""
    tensors = {
        "query_embeddings": torch.randn(2, QUERIES, WIDTH),
        "mask_logits": torch.randn(2, QUERIES, 16, 16),
        "mask_features": torch.randn(2, WIDTH, 16, 16),
        "clip_features": torch.randn(2, CLIP_CHANNELS, 4, 4),
        "clip_embeddings": torch.randn(2, QUERIES, EMBED),
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


def test_pool_equals_loops():
    """The mean over positive pixels, written as loops; a logit of exactly 0 is outside."""
    features, logits = torch.randn(2, 3, 5, 4), torch.randn(2, 6, 5, 4)
    logits[0, 0, 2, 2] = 0.0
    pooled = masked_average_pool(features, logits)
    for b in range(2):
        for q in range(6):
            inside = [features[b, :, y, x] for y in range(5) for x in range(4) if logits[b, q, y, x] > 0]
            torch.testing.assert_close(pooled[b, q], torch.stack(inside).mean(0))


def test_pool_over_the_whole_image_is_the_mean():
    """A mask that covers everything pools the mean of the map, also across sizes."""
    features = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(masked_average_pool(features, torch.ones(1, 1, 32, 32))[0, 0], features[0].mean((1, 2)))


def test_shrinking_keeps_the_cells_mostly_inside():
    """64×64 -> 8×8: of the left 35 columns the 4 whole cells stay, the cell with 3 of its 8 columns inside does not."""
    logits = torch.full((1, 1, 64, 64), -1.0)
    logits[..., :35] = 1.0
    assert binary_masks(logits, (8, 8))[0, 0].sum(0).tolist() == [8] * 4 + [0] * 4


def test_shrinking_averages():
    """Cells inside but for the two pixel columns at their centre, all that a plain bilinear resize looks at, are on."""
    logits = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0]).repeat(8).repeat(1, 1, 64, 1)
    logits[..., :8, :8] = 1.0  # one cell that any resize keeps, so that the rule for lost masks stays out of it
    assert binary_masks(logits, (8, 8)).all()


@pytest.mark.parametrize("size", [(8, 8), (16, 16)])
def test_small_object_is_never_lost(size):
    """One positive pixel of 64×64 pools from the cell that holds it, and from no other."""
    logits = torch.full((1, 1, 64, 64), -10.0)
    logits[0, 0, 21, 50] = 0.1
    masks = binary_masks(logits, size)[0, 0]
    assert masks.nonzero().tolist() == [[21 * size[0] // 64, 50 * size[1] // 64]]


def test_enlarging():
    """A mask coarser than the features is enlarged: the left half stays the left half."""
    logits = torch.tensor([1.0, 1.0, -1.0, -1.0]).expand(1, 1, 4, 4)
    assert binary_masks(logits, (8, 8))[0, 0].sum(0).tolist() == [8] * 4 + [0] * 4


def test_empty_mask_pools_zero():
    """Nothing positive: zero, not NaN, with a finite gradient."""
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    pooled = masked_average_pool(features, torch.full((1, 2, 16, 16), -1.0))
    pooled.sum().backward()
    assert torch.equal(pooled, torch.zeros(1, 2, 3))
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("build", POOLINGS)
def test_permutation_equivariant(build):
    """Masks in another order give the same embeddings in that order; another image changes nothing."""
    pooling, inputs = build(WIDTH, EMBED, clip_channels=CLIP_CHANNELS), arguments()
    order = torch.randperm(QUERIES)
    per_mask = ("query_embeddings", "mask_logits", "clip_embeddings")
    shuffled = {name: x[:1, order] if name in per_mask else x[:1] for name, x in inputs.items()}
    expected = pooling(PoolingInputs(**inputs))[:1, order]
    torch.testing.assert_close(pooling(PoolingInputs(**shuffled)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "reached"),
    [
        (LocalDiscriminativePooling, {"query_embeddings", "mask_features"}),
        (SamMaskPooling, {"query_embeddings", "mask_features"}),
        (ClipMaskPooling, set()),
        (CrossAttentionPooling, {"query_embeddings"}),
    ],
)
def test_gradient_paths(build, reached):
    """No gradient into the masks or anything of CLIP; into queries and mask features where the equation has them."""
    pooling, inputs = build(WIDTH, EMBED, clip_channels=CLIP_CHANNELS), arguments()
    embeddings = pooling(PoolingInputs(**inputs))
    (embeddings * torch.randn(EMBED)).sum().backward()  # a plain sum of LayerNorm's output has no gradient
    assert {name for name, x in inputs.items() if x.grad is not None and x.grad.abs().sum() > 0} == reached
    assert all(parameter.grad is not None for parameter in pooling.parameters())


@pytest.mark.parametrize("build", POOLINGS)
def test_empty_and_full_masks_are_finite(build):
    """All masks empty, or all full: finite embeddings."""
    pooling, inputs = build(WIDTH, EMBED, clip_channels=CLIP_CHANNELS), arguments()
    for sign in (-1.0, 1.0):
        inputs["mask_logits"] = torch.full((2, QUERIES, 16, 16), sign)
        assert pooling(PoolingInputs(**inputs)).isfinite().all()


def test_ldp_equation():
    """LDP step by step as in the header, the encoder layer written out: post-norm, GELU, no dropout while training."""
    ldp, inputs = LocalDiscriminativePooling(WIDTH, EMBED, clip_channels=CLIP_CHANNELS), arguments()
    inside = (inputs["mask_logits"] > 0).float()
    pooled = torch.einsum("bqhw,bchw->bqc", inside, inputs["mask_features"]) / inside.sum((2, 3))[..., None]
    e_sam = pooled + inputs["query_embeddings"]
    x = torch.cat([ldp.sam_projection(e_sam), ldp.clip_projection(inputs["clip_embeddings"])], dim=-1)
    layer = ldp.encoder
    x = layer.norm1(x + layer.self_attn(x, x, x, need_weights=False)[0])
    x = layer.norm2(x + layer.linear2(torch.nn.functional.gelu(layer.linear1(x))))
    expected = ldp.norm(ldp.output_projection(x))
    torch.testing.assert_close(ldp(PoolingInputs(**inputs)), expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(ldp.eval()(PoolingInputs(**inputs)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("build", POOLINGS)
def test_equal_masks(build):
    """Two queries with one mask stay distinguishable wherever the query enters; not in pure CLIP pooling."""
    inputs = arguments()
    with torch.no_grad():
        for name in ("mask_logits", "clip_embeddings"):
            inputs[name][:, 1] = inputs[name][:, 0]
    first, second = build(WIDTH, EMBED, clip_channels=CLIP_CHANNELS)(PoolingInputs(**inputs))[:, :2].unbind(1)
    assert torch.equal(first, second) == (build is ClipMaskPooling)
