"""An encoder resized for good, against segment-anything's with the same tables."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn
from torch.nn import functional as F

from plug.resize_positions import resize_positions
from sam_common.errors import UserError
from sam_common.sam.build import build_image_encoder


def test_a_resized_encoder_equals_segment_anythings_with_the_same_tables() -> None:
    """Size T for 512 pixels: bilinear absolute positions, linear relative ones in global blocks; 1e-5 of the scale."""
    encoder = build_image_encoder("T").eval()
    for name, parameter in encoder.named_parameters():
        if "pos" in name:
            nn.init.normal_(parameter, std=0.2)
    state = dict(encoder.state_dict())
    state["pos_embed"] = F.interpolate(state["pos_embed"].permute(0, 3, 1, 2), (32, 32), mode="bilinear").permute(
        0, 2, 3, 1
    )
    for index in (1, 3):
        for axis in ("h", "w"):
            key = f"blocks.{index}.attn.rel_pos_{axis}"
            state[key] = F.interpolate(state[key].T[None], 63, mode="linear")[0].T
    options = {"embed_dim": 192, "depth": 4, "num_heads": 6, "out_chans": 128, "global_attn_indexes": (1, 3)}
    official = ImageEncoderViT(
        img_size=512,
        **options,
        mlp_ratio=4,
        qkv_bias=True,
        use_rel_pos=True,
        window_size=8,
        norm_layer=lambda dim: nn.LayerNorm(dim, eps=1e-6),
    ).eval()
    official.load_state_dict(state)
    resize_positions(encoder, 512)
    image = torch.randn(1, 3, 512, 512)
    with torch.no_grad():
        expected, found = official(image), encoder(image)
    assert (expected - found).abs().max() < 1e-5 * expected.abs().max()


def test_at_its_own_size_nothing_changes() -> None:
    """And a size that is no multiple of a patch is refused."""
    encoder = build_image_encoder("T")
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    resize_positions(encoder, 256)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    with pytest.raises(UserError, match="multiple of 16"):
        resize_positions(encoder, 100)


def test_a_resized_vit_h_has_fewer_parameters() -> None:
    """By hand: 64² - 32² absolute positions of 1280, and in 4 global blocks 2 tables of 127 - 63 offsets of 80."""
    with torch.device("meta"):
        encoder = build_image_encoder("H")
        before = sum(p.numel() for p in encoder.parameters())
        resize_positions(encoder, 512)
    assert before - sum(p.numel() for p in encoder.parameters()) == (64**2 - 32**2) * 1280 + 4 * 2 * 64 * 80
