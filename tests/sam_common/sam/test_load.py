"""Loading SAM's weights: what loads, and that nothing is dropped or kept silently."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sam_common.errors import UserError
from sam_common.io.weights import state_sha256
from sam_common.sam import load
from sam_common.sam.build import build_image_encoder, build_sam
from sam_common.sam.load import load_sam_weights


@pytest.fixture()
def state() -> dict[str, Tensor]:
    """A whole tiny SAM, drawn at random, rounded to what float16 can hold."""
    sam = build_sam("T")
    load_sam_weights(sam, "random")
    return {name: tensor.half().float() for name, tensor in sam.state_dict().items()}


def test_official_layout_loads(state: dict[str, Tensor], tmp_path: Path) -> None:
    """A .pth state dict arrives unchanged."""
    torch.save(state, tmp_path / "sam.pth")
    sam = build_sam("T")
    load_sam_weights(sam, tmp_path / "sam.pth")
    assert state_sha256(sam.state_dict()) == state_sha256(state)
    for name, tensor in sam.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_float16_safetensors_load_as_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    """The hash does not depend on how the file stores the same numbers."""
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "sam.safetensors")
    sam = build_sam("T")
    load_sam_weights(sam, str(tmp_path / "sam.safetensors"))
    assert state_sha256(sam.state_dict()) == state_sha256(state)
    assert {tensor.dtype for tensor in sam.state_dict().values()} == {torch.float32}


def test_embedded_weights_are_size_t(state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`embedded` means the file that ships with the project; another size is refused as for any file."""
    save_file(state, tmp_path / "tiny.safetensors")
    asked: list[str] = []
    monkeypatch.setattr(load, "resource", lambda name: asked.append(name) or tmp_path / "tiny.safetensors")
    sam = build_sam("T")
    load_sam_weights(sam, "embedded")
    assert state_sha256(sam.state_dict()) == state_sha256(state)
    assert asked == ["weights/tiny_sam.safetensors"]
    with torch.device("meta"):
        encoder = build_image_encoder("L")
    with pytest.raises(UserError, match="looks like SAM size T .* but SAM size L"):
        load_sam_weights(encoder, "embedded")


def test_image_encoder_alone_takes_its_part(state: dict[str, Tensor], tmp_path: Path) -> None:
    """From the file of a whole SAM the other two parts are left out, and nothing else may be."""
    torch.save(state, tmp_path / "sam.pth")
    encoder = build_image_encoder("T")
    load_sam_weights(encoder, tmp_path / "sam.pth")
    assert torch.equal(encoder.pos_embed, state["image_encoder.pos_embed"])
    torch.save(state | {"image_encoder.extra": torch.zeros(1)}, tmp_path / "sam.pth")
    with pytest.raises(UserError, match=r"1 unexpected \(image_encoder\.extra\)"):
        load_sam_weights(encoder, tmp_path / "sam.pth")


def test_random_weights_have_positions() -> None:
    """Every position table is drawn, repeatably by seed; zeros would make a degenerate encoder."""
    hashes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        encoder = build_image_encoder("T")
        load_sam_weights(encoder, "random")
        hashes.append(state_sha256(encoder.state_dict()))
        assert all(p.abs().sum() > 0 for name, p in encoder.named_parameters() if "pos" in name)
    assert hashes[0] == hashes[1] != hashes[2]


def test_every_kind_of_fault_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Missing, unexpected and mis-shaped keys in one line: the first three of each and their number."""
    for name in [name for name in state if name.startswith("image_encoder.neck")]:
        del state[name]
    state["surprise"] = torch.zeros(1)
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 64)
    torch.save(state, tmp_path / "sam.pth")
    with pytest.raises(UserError) as caught:
        load_sam_weights(build_sam("T"), tmp_path / "sam.pth")
    message = str(caught.value)
    first = "image_encoder.neck.0.weight, image_encoder.neck.1.bias, image_encoder.neck.1.weight"
    assert f"6 missing ({first} and 3 more)" in message
    assert "1 unexpected (surprise)" in message
    assert "1 of another shape (mask_decoder.iou_token.weight (1, 64) for (1, 128))" in message
    assert str(tmp_path / "sam.pth") in message and "\n" not in message


def test_a_failed_load_changes_nothing(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Faults are found before the first tensor is copied."""
    torch.save({name: tensor for name, tensor in state.items() if "neck" not in name}, tmp_path / "sam.pth")
    sam = build_sam("T")
    before = state_sha256(sam.state_dict())
    with pytest.raises(UserError, match="6 missing"):
        load_sam_weights(sam, tmp_path / "sam.pth")
    assert state_sha256(sam.state_dict()) == before


def test_another_size_is_told(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Both sizes are named, by dim and depth, instead of hundreds of keys."""
    torch.save(state, tmp_path / "sam.pth")
    with torch.device("meta"):
        sam = build_sam("B")
    with pytest.raises(UserError, match=r"looks like SAM size T \(dim 192, depth 4\) but SAM size B \(dim 768"):
        load_sam_weights(sam, tmp_path / "sam.pth")


def test_official_name_of_another_size_is_refused_before_the_download() -> None:
    """No gigabytes for nothing: the name alone tells."""
    with pytest.raises(UserError, match=r"sam_vit_h looks like SAM size H \(dim 1280, depth 32\) but SAM size T"):
        load_sam_weights(build_image_encoder("T"), "sam_vit_h")


def test_unknown_source_lists_the_known_ones() -> None:
    """A misspelt name is not mistaken for anything else."""
    with pytest.raises(
        UserError, match="no file sam_vit_x; give a path or one of sam_vit_b, sam_vit_l, sam_vit_h, emb"
    ):
        load_sam_weights(build_image_encoder("T"), "sam_vit_x")
