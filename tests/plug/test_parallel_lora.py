"""Parallel LoRA against the base encoder, merged weights and separate passes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks import plug_branches
from plug.parallel_lora import ParallelEncoder, ParallelLora
from plug.resize_positions import resize_positions
from sam_common.sam.build import build_image_encoder
from sam_common.sam.image_encoder import ImageEncoder

SIZE = 96  # 6 tokens: windows of 8 are padded


@pytest.fixture
def base() -> ImageEncoder:
    """A size-T encoder whose position tables are random: zeros would hide what is done with them."""
    encoder = build_image_encoder("T").eval()
    for name, parameter in encoder.named_parameters():
        if "pos" in name:
            nn.init.normal_(parameter, std=0.5)
    return encoder


def changed(base: ImageEncoder) -> ParallelEncoder:
    """Both branches with changes of their own."""
    encoder = ParallelEncoder(copy.deepcopy(base), size=SIZE, rank=4)
    for name, parameter in encoder.named_parameters():
        if name.endswith("up"):
            nn.init.normal_(parameter, std=0.05)
    return encoder.eval()


def merged(encoder: ParallelEncoder, branch: int) -> ImageEncoder:
    """One branch as a plain encoder."""
    plain = copy.deepcopy(encoder.encoder)
    for block in plain.blocks:
        lora, plain_qkv = block.attn.qkv, nn.Linear(192, 3 * 192)
        plain_qkv.load_state_dict({"weight": lora.merged()[branch].detach(), "bias": lora.qkv.bias})
        block.attn.qkv = plain_qkv
    return plain


def test_it_begins_as_the_base_in_every_branch(base: ImageEncoder) -> None:
    """With B = 0 both branches are SAM's encoder, to the last bit of rounding."""
    images = torch.randn(2, 3, SIZE, SIZE)
    plain = copy.deepcopy(base)
    resize_positions(plain, SIZE)
    both = ParallelEncoder(copy.deepcopy(base), size=SIZE, rank=4).eval()(images)
    for branch in both:
        torch.testing.assert_close(branch, plain(images), rtol=1e-5, atol=1e-5)


def test_two_branches_in_one_batch_are_two_passes_and_two_merged_encoders(base: ImageEncoder) -> None:
    """Each branch equals a plain encoder with its changes merged in, within 1e-5, and they differ from each other."""
    encoder, images = changed(base), torch.randn(2, 3, SIZE, SIZE)
    together = encoder(images)
    assert together.shape == (2, 2, base.out_channels, SIZE // 16, SIZE // 16)
    for branch in range(2):
        torch.testing.assert_close(together[branch], merged(encoder, branch)(images), rtol=1e-5, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_only_the_changes_train(base: ImageEncoder) -> None:
    """Every A and B gets a gradient, nothing of SAM does: 2 branches × (q, v) × (A, B) × rank × C in each block."""
    encoder = changed(base)
    encoder(torch.randn(1, 3, SIZE, SIZE)).square().sum().backward()
    trained = {name: p for name, p in encoder.named_parameters() if p.grad is not None}
    assert trained.keys() == {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == 4 * 2 * 2 * 2 * 4 * 192


@pytest.mark.parametrize(("rank", "expected"), [(4, 1_310_720), (8, 2_621_440), (16, 5_242_880), (32, 10_485_760)])
def test_the_changes_of_vit_h_have_the_papers_size(rank: int, expected: int) -> None:
    """5,242,880 parameters at rank 16, in proportion at others."""
    with torch.device("meta"):
        encoder = ParallelEncoder(build_image_encoder("H"), size=512, rank=rank)
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == expected


def test_a_shared_layer_is_one_that_repeats_its_input() -> None:
    """Computing what the branches share once changes nothing."""
    linear = nn.Linear(6, 18)
    once, twice = ParallelLora(linear, 2, 2, shared=True), ParallelLora(linear, 2, 2)
    nn.init.normal_(twice.up)
    once.load_state_dict(twice.state_dict())
    tokens = torch.randn(3, 4, 5, 6)
    torch.testing.assert_close(once(tokens), twice(tokens.repeat(2, 1, 1, 1)))


def test_both_branches_are_two_passes_of_segment_anything_with_lora_beside() -> None:
    """What the benchmark checks before it times: embeddings, and the gradients of all A and B."""
    official, passes, ours = plug_branches.build("T")
    images = torch.randn(2, 3, 128, 128)
    for peer in (official, passes):
        plug_branches.check(peer, ours, images)
