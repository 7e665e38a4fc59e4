"""The Python in docs/detectron2.md, run as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model

import detectron2_sam
from detectron2_sam import vocabulary_of
from sam_common.data import catalog
from tests.detectron2_sam.conftest import HERE
from tests.detectron2_sam.helpers import small_cfg

ROOT = HERE.parents[1]


def plug_cfg() -> Any:
    """As the guide has it."""
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file("configs/plug_T.yaml")
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
    completer = build_model(plug_cfg())
    DetectionCheckpointer(completer, str(world / "output" / "demo" / "plug")).save("model_final")
    (world / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(world)

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "detectron2.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert (world / "drawn.png").is_file()
    assert names["whole"].pred_masks.shape == names["whole"].pred_visible_masks.shape == (1, 64, 64)
    assert type(names["model"]).__name__ == "GeneralizedRCNN"
