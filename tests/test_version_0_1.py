"""What version 0.1 left behind loads: a checkpoint of each method, an adapter, the configuration of a run.

The files were written by that version; to keep them small, every weight was then set to 0.25.
"""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
import torch

import amsam
import plug
import possam
from detectron2_sam.commands.train import parse
from detectron2_sam.commands.train.run import setup
from detectron2_sam.methods import full_cfg
from sam_common.engine.checkpoint import frozen_sha256, load_trained, read_checkpoint
from sam_common.errors import UserError
from sam_common.method import build_model

FOLDER = Path(__file__).parent / "support" / "version_0_1"
PICTURE = torch.zeros(3, 40, 60, dtype=torch.uint8)


def unpacked(name: str, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(lzma.decompress((FOLDER / f"{name}.xz").read_bytes()))
    return path


@pytest.mark.parametrize(("method", "package"), [("possam", possam), ("plug", plug), ("amsam", amsam)])
def test_checkpoints(method: str, package: object, tmp_path: Path) -> None:
    """Every trained weight is the file's, the frozen ones are those it was trained with, and it predicts."""
    path = unpacked(f"{method}.pth", tmp_path)
    predictor = package.Predictor.from_config(f"{method}_T", weights=path)  # type: ignore[attr-defined]
    trained = [parameter for parameter in predictor.model.parameters() if parameter.requires_grad]
    assert trained and all(bool((parameter == 0.25).all()) for parameter in trained)
    asked = {"possam": ["red square"], "plug": [[5, 5, 30, 30]], "amsam": [[5, 5, 30, 30]]}[method]
    assert predictor(PICTURE, asked).draw().size


def test_the_adapter(tmp_path: Path) -> None:
    """Its settings, classes and weights."""
    predictor = amsam.Predictor.from_adapter(unpacked("adapter.safetensors", tmp_path))
    assert predictor.classes == ["worm"] and predictor(PICTURE).labels.shape == (40, 60)
    assert all(bool((p == 0.25).all()) for p in predictor.model.parameters() if p.requires_grad)


def test_the_configuration_of_a_run(tmp_path: Path) -> None:
    """It held the keys of all methods. The program reads it and keeps PosSAM's; Python names the first that is not."""
    options = ["OUTPUT_DIR", str(tmp_path), "DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.DEVICE", "cpu"]
    cfg = setup(parse(["--config-file", str(FOLDER / "config.yaml"), *options]))
    assert cfg.SOLVER.MAX_ITER == 12 and "PLUG" not in cfg.MODEL and "SHOTS" not in cfg.DATASETS
    with pytest.raises(UserError, match=r"unknown configuration key .*detectron2-sam predict"):
        possam.Predictor.from_config(FOLDER / "config.yaml", weights="random")


def test_the_configuration_that_a_checkpoint_tells(tmp_path: Path) -> None:
    """A checkpoint holds its run's configuration: the model it describes is the one the checkpoint is of."""
    path = unpacked("amsam.pth", tmp_path)
    content, cfg = read_checkpoint(path), full_cfg()
    (tmp_path / "told.yaml").write_text(content["config"])
    cfg.merge_from_file(tmp_path / "told.yaml")
    model = build_model(cfg)
    load_trained(model, content, str(path), frozen=frozen_sha256(model))
    assert content["iteration"] >= 0 and content["seed"] == 0
