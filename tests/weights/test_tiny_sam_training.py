"""weights/tiny_encoders/sam.py: what it trains, from which prompts, and what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sam_common.data.generated.scene import generate_scene
from sam_common.data.generated.vocabulary import seen_vocabulary
from sam_common.sam.build import build_sam
from sam_common.sam.load import load_sam_weights
from weights.tiny_encoders import sam as tiny_sam


def test_mask_loss_by_hand():
    """Logits 0 against full coverage of 4 pixels: 5 ln 2 + 1 - (2·4·½ + 1) / (4·¼ + 4 + 1); sure and right: about 0."""
    full = torch.ones(1, 2, 2)
    expected = 5 * torch.log(torch.tensor(2.0)) + 1 - 5 / 6
    assert tiny_sam._mask_loss(torch.zeros(1, 2, 2), full).item() == pytest.approx(expected.item(), rel=1e-5)
    assert tiny_sam._mask_loss(torch.full((1, 2, 2), 30.0), full).item() == pytest.approx(0, abs=1e-5)


def test_everything_but_unused_prompts_learns():
    """No gradient: mask prompts, negative points, and of the three alternative masks those that never were the best."""
    sam = build_sam("T").train()
    scenes = [generate_scene(0, 0, categories=seen_vocabulary())]
    losses = tiny_sam.training_losses(sam, scenes, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    idle = {name for name, p in sam.named_parameters() if p.grad is None or not p.grad.any()}
    beaten = {f"mask_decoder.output_hypernetworks_mlps.{mask}." for mask in (1, 2, 3)}
    expected = ("prompt_encoder.mask_downscaling.", "prompt_encoder.point_embeddings.0.", *beaten)
    assert all(name.startswith(expected) for name in idle), idle
    assert any(not any(name.startswith(mask) for name in idle) for mask in beaten)


def test_the_file_is_half_precision_and_loads_strictly(tmp_path: Path):
    """`load_sam_weights` accepts what `write` writes, and the metadata survive."""
    sam, file = build_sam("T"), tmp_path / "sub" / "sam.safetensors"
    tiny_sam.write(file, {name: tensor.half() for name, tensor in sam.state_dict().items()}, {"seed": "4"})
    loaded = build_sam("T")
    load_sam_weights(loaded, file)
    for name, tensor in sam.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float()), name
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"seed": "4"}
    assert [path.name for path in file.parent.iterdir()] == [file.name]
