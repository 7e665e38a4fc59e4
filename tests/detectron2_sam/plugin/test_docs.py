"""The Python in docs/detectron2.md, run as it stands."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model

import detectron2_sam
from detectron2_sam import vocabulary_of
from detectron2_sam.plugin.compat import stock_config
from sam_common.boxes import detectors
from sam_common.data import catalog
from tests.support.documented import ROOT, code_blocks
from tests.support.small_cfg import small_cfg


def guide_cfg(name: str) -> Any:
    """As the guide has it."""
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(f"configs/{name}.yaml")
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def test_the_guide_runs_from_top_to_bottom(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block works after the ones before it, with a checkpoint and a picture where the guide says they are."""
    weights = world / "output" / "demo" / "possam"
    weights.mkdir(parents=True)
    (world / "output" / "demo" / "plug").mkdir()
    model = build_model(small_cfg(world))
    model.training_vocabulary = vocabulary_of("generated_train_panoptic")
    DetectionCheckpointer(model, str(weights)).save("model_final")
    shutil.copy(catalog.get("generated_test_panoptic").load()[0]["file_name"], world / "scene.png")
    completer = build_model(guide_cfg("plug_T"))
    DetectionCheckpointer(completer, str(world / "output" / "demo" / "plug")).save("model_final")
    (world / "output" / "amsam_T").mkdir()
    DetectionCheckpointer(build_model(guide_cfg("amsam_T")), str(world / "output" / "amsam_T")).save("model_best")
    stock = get_cfg()
    stock.merge_from_file(str(stock_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml")))
    stock.MODEL.DEVICE, stock.MODEL.WEIGHTS = "cpu", ""
    DetectionCheckpointer(build_model(stock), str(world)).save("detector")
    (world / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(world)

    blocks = code_blocks((ROOT / "docs" / "detectron2.md").read_text(encoding="utf-8"), "python")
    assert len(blocks) == 10
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert (world / "drawn.png").is_file()
    assert names["whole"].pred_masks.shape == names["whole"].pred_visible_masks.shape == (1, 64, 64)
    assert len(names["detected"].pred_amodal_masks) == len(names["detected"])
    assert names["results"]["amodal"]["n_missed"] >= 0
    assert names["labels"].shape == (64, 64) and names["drawn"].get_image().shape == (64, 64, 3)
    assert "retinanet" in detectors._MAKERS
    assert type(names["model"]).__name__ == "PosSAM" and names["model"].head.decoder.query_features.num_embeddings == 50
