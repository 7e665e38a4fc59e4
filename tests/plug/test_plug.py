"""PLUG as a whole: counts, losses, gradients, outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plug.config import add_plug_config, build_plug
from plug.plug import PLUG
from sam_common.config import CfgNode, get_cfg
from sam_common.errors import UserError


def config(*options: object) -> CfgNode:
    cfg = get_cfg()
    add_plug_config(cfg)
    tiny = ("MODEL.SAM.SIZE", "T", "MODEL.SAM.WEIGHTS", "random", "MODEL.PLUG.CROP_SIZE", 64, "MODEL.PLUG.LORA_RANK", 4)
    cfg.merge_from_list([*tiny, "MODEL.PLUG.REFINE_WIDTH", 8, *options])
    return cfg


def entry(objects: int = 2) -> dict[str, Any]:
    """An image of 40×60 pixels with squares, the left half of each visible."""
    amodal = torch.zeros(objects, 40, 60, dtype=torch.bool)
    boxes = torch.zeros(objects, 4)
    for index in range(objects):
        x = 5 + 20 * index % 40
        amodal[index, 10:26, x : x + 16] = True
        boxes[index] = torch.tensor([x, 10, x + 8, 26])
    visible = amodal.clone()
    for index, box in enumerate(boxes.int().tolist()):
        visible[index, :, box[2] :] = False
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    truth = {"visible_masks": visible, "amodal_masks": amodal, "seeds": list(range(objects))}
    return {"image": image, "boxes": boxes, **truth}


@pytest.fixture
def model() -> PLUG:
    torch.manual_seed(0)
    return build_plug(config())


@pytest.mark.parametrize(("rank", "trainable"), [(4, 8_749_007), (8, 10_059_727), (16, 12_681_167), (32, 17_924_047)])
def test_trainable_parameters_of_vit_h_by_rank(rank: int, trainable: int) -> None:
    """Table 3 of the paper (8.8, 10.0, 12.7, 17.9 M), to the last parameter, part by part."""
    cfg = get_cfg()
    add_plug_config(cfg)
    cfg.merge_from_list(["MODEL.SAM.SIZE", "H", "MODEL.SAM.WEIGHTS", "random", "MODEL.PLUG.LORA_RANK", rank])
    with torch.device("meta"):
        model = build_plug(cfg)
    counts = {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in model.named_children()
    }
    assert sum(counts.values()) == trainable
    assert counts["encoder"] == 5_242_880 * rank // 16
    assert counts["decoders"] == 2 * 3_637_377
    assert counts["prompt_encoder"] == 6_220
    assert counts["refine"] == 157_313


@pytest.mark.parametrize(("size", "total"), [("H", 645_734_095), ("L", 315_683_791), ("B", 95_896_783)])
def test_total_parameters_by_size(size: str, total: int) -> None:
    """The paper's 645, 316 and 96 M at rank 16."""
    cfg = get_cfg()
    add_plug_config(cfg)
    cfg.merge_from_list(["MODEL.SAM.SIZE", size, "MODEL.SAM.WEIGHTS", "random"])
    with torch.device("meta"):
        assert sum(p.numel() for p in build_plug(cfg).parameters()) == total


def test_losses_reach_all_that_trains(model: PLUG) -> None:
    """Five finite losses; every trainable parameter gets a gradient but those the spec names as never trained."""
    losses = model.train()([entry(), entry(1)])
    assert losses.keys() == {
        *("loss_visible", "loss_visible_points", "loss_amodal", "loss_amodal_points", "loss_refined")
    }
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    idle = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    never = ("iou_prediction_head", "mask_downscaling", "point_embeddings.0", "point_embeddings.1", "not_a_point_embed")
    assert all(any(part in name for part in never) for name in idle), idle
    assert not any(p.requires_grad for name, p in model.encoder.named_parameters() if not name.endswith(("up", "down")))


def test_a_batch_of_objects_is_a_loop_over_them(model: PLUG) -> None:
    """Objects of one image, and of several, do not see each other in evaluation, whatever goes through at once."""
    whole = model.eval()([entry(3)])[0]["amodal"]
    model.inference = type(model.inference)(max_crops=1)
    one_by_one = model([entry(3)])[0]["amodal"]
    torch.testing.assert_close(whole.scores, one_by_one.scores, rtol=1e-4, atol=1e-5)
    for index in range(3):
        assert (whole.amodal_mask(index) != one_by_one.amodal_mask(index)).float().mean() < 1e-3


def test_outputs_have_the_images_size(model: PLUG) -> None:
    """Masks and scores for each box, nothing outside its window; an image without boxes gives none."""
    output = model.eval()([entry(2)])[0]["amodal"]
    assert output.amodal_mask(0).shape == output.visible_mask(1).shape == (40, 60)
    assert output.scores.shape == (2,) and ((output.scores >= 0) & (output.scores <= 1)).all()
    assert not output.amodal_mask(0)[:, 30:].any()
    none = model([{"image": entry()["image"], "boxes": torch.zeros(0, 4)}])[0]["amodal"]
    assert len(none) == 0 and none.pred_masks == [] and none.scores.shape == (0,)


def test_a_single_branch_is_amodal_only() -> None:
    """Table 2's rows: no visible mask, no point loss, no refinement."""
    off = ("MODEL.PLUG.BRANCHES", 1, "MODEL.PLUG.POINT_LOSS", False, "MODEL.PLUG.REFINE", False)
    model = build_plug(config(*off))
    losses = model.train()([entry()])
    assert losses.keys() == {"loss_amodal", "loss_refined"} and losses["loss_refined"] == 0
    assert model.eval()([entry()])[0]["amodal"].visible_mask(0) is None


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("BRANCHES", 3, "choose 1"),
        ("CROP_BORDER", "x", "choose one of clip, pad"),
        ("CROP_SIZE", 100, "multiple of 16"),
        ("NUM_POINTS", 2000, "at least 8000 pixels"),
        ("NUM_POINTS", -1, "at least 1"),
        ("LORA_RANK", 0, "at least 1"),
        ("TEST.THRESHOLD", 30.0, "between 0 and 1"),
    ],
)
def test_keys_that_make_no_sense_are_named(option: str, value: object, message: str) -> None:
    """One line that names the key."""
    with pytest.raises(UserError, match=rf"MODEL\.PLUG\.{option}.*{message}"):
        build_plug(config(f"MODEL.PLUG.{option}", value))
