"""PosSAM's trainable parameters at width 256, part by part (shared numbers: the paper's totals in docs/papers)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from possam.feature_pyramid import FeaturePyramid, ResizedFeatures
from possam.iou_head import IoUHead, PerfectIoU
from possam.local_discriminative_pooling import LocalDiscriminativePooling
from possam.masked_transformer_decoder import MaskedTransformerDecoder
from possam.pixel_decoder import PixelDecoder

PARTS = {
    "feature_pyramid": (
        lambda: FeaturePyramid(256),
        1_377_792,
        {"p2": 2 * 262_400 + 512, "p3": 262_400, "p4": 0, "p5": 590_080},
    ),
    "pixel_decoder": (
        lambda: PixelDecoder(256, 256),
        5_315_008,
        {
            "projections": 198_912,
            "level_embeddings": 768,
            "layers": 6 * 732_192,
            "lateral": 66_048,
            "smooth": 590_336,
            "mask_projection": 65_792,
        },
    ),
    "masked_transformer_decoder": (
        lambda: MaskedTransformerDecoder(256, num_queries=100),
        14_458_624,
        {
            "query_features": 25_600,
            "query_positions": 25_600,
            "level_embeddings": 768,
            "layers": 9 * 1_578_752,
            "output_norm": 512,
            "mask_mlp": 197_376,
        },
    ),
    "local_discriminative_pooling": (
        lambda: LocalDiscriminativePooling(256, 768, clip_channels=1536),
        30_301_440,
        {
            "sam_projection": 197_376,
            "clip_projection": 590_592,
            "encoder": 28_331_520,
            "output_projection": 1_180_416,
            "norm": 1_536,
        },
    ),
    "iou_head": (lambda: IoUHead(256), 131_841, {"mlp": 131_841}),
    "resized_features": (ResizedFeatures, 0, {}),
    "perfect_iou": (PerfectIoU, 0, {}),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PARTS)
def test_counts(name):
    """Every child holds exactly the parameters that the paper's printed totals leave for it; all of them train."""
    build, total, children = PARTS[name]
    with torch.device("meta"):
        module = build()
    assert {child: count(part) for child, part in module.named_children()} == children
    assert count(module) == total
    assert all(parameter.requires_grad for parameter in module.parameters())
