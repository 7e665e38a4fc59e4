"""A method is one object: a fourth one trains, evaluates and predicts through the ordinary commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from detectron2_sam import methods
from detectron2_sam.program import main
from sam_common import method
from sam_common.data import catalog


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line in the list of methods, and nothing else."""
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, "tests.support.fourth_method"))
    for table in ("_specs", "_origin"):
        monkeypatch.setattr(catalog, table, {})
    monkeypatch.setattr(method, "_methods", dict(method._methods))


def draw(folder: Path, count: int) -> None:
    """Pictures whose left part, of another width in each, is red; the masks say where."""
    for index in range(count):
        mask = np.arange(16) < 4 + index
        pixels = np.where(np.tile(mask, (16, 1))[..., None], [220, 30, 30], [30, 60, 200]).astype(np.uint8)
        for name, content in (("images", pixels), ("masks", np.tile(mask, (16, 1)).astype(np.uint8) * 255)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(folder / name / f"{index}.png")


def test_a_fourth_method_through_the_commands(listed: None, tmp_path: Path) -> None:
    """Its model learns its truth to the last pixel, its metric says so after the training and alone, its prediction is
    drawn; the run keeps its own keys."""
    draw(tmp_path, 4)
    entry = {"NAME": "mine", "FORMAT": "foreground", "IMAGES": f"{tmp_path}/images", "MASKS": f"{tmp_path}/masks"}
    config, run = tmp_path / "foreground.yaml", tmp_path / "run"
    keys = {
        "MODEL": {"META_ARCHITECTURE": "Foreground", "DEVICE": "cpu", "FOREGROUND": {"RATE": 20.0}},
        "DATASETS": {"TRAIN": ["mine"], "TEST": ["mine"], "REGISTER": [entry]},
        "DATALOADER": {"NUM_WORKERS": 0},
        "SOLVER": {"MAX_ITER": 40, "IMS_PER_BATCH": 2, "BASE_LR": 0.05, "CLIP_GRADIENTS": {"ENABLED": False}},
        "OUTPUT_DIR": str(run),
    }
    config.write_text(yaml.safe_dump(keys))
    common = ["--config", str(config), "--engine", "fabric"]

    assert main(["train", *common]) == 0
    results = json.loads((run / "inference" / "mine" / "results.json").read_text())
    assert results["results"] == {"foreground": {"accuracy": 100.0}} and results["truth"] == "foreground"
    assert yaml.safe_load((run / "config.yaml").read_text())["MODEL"].keys() >= {"FOREGROUND", "SAM"}
    assert "PLUG" not in yaml.safe_load((run / "config.yaml").read_text())["MODEL"]

    weights, alone = str(run / "model_final.pth"), tmp_path / "alone"
    assert main(["evaluate", *common, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", str(alone)]) == 0
    again = json.loads((alone / "inference" / "mine" / "results.json").read_text())
    assert again["results"] == results["results"] and again["checkpoint"] == weights

    arguments = ["--config", str(config), "--weights", weights, "--input", f"{tmp_path}/images"]
    assert main(["predict", *arguments, "--output", str(tmp_path / "out")]) == 0
    drawn = [np.array(Image.open(tmp_path / "out" / f"{index}.png")) for index in range(4)]
    assert [int(picture[0].sum()) for picture in drawn] == [4, 5, 6, 7]
