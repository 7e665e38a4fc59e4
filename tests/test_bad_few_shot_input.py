"""AM-SAM with detectors that find nothing usable and adapters of another encoder, through the tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from amsam.adapter import write_adapter
from amsam.config import adapter_settings, build_amsam
from amsam.data.worms import write_worms
from detectron2_sam.commands import predict
from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.cli import run_tool
from sam_common.boxes.boxes import Boxes
from sam_common.boxes.detectors import register_detector
from tests.amsam.test_amsam import config

NAN = float("nan")
USELESS = {
    "nothing": ([], []),
    "no numbers": ([[NAN, 0.0, 9.0, 9.0], [0.0, 0.0, NAN, NAN]], [0.9, 0.9]),
    "no score": ([[0.0, 0.0, 9.0, 9.0]], [NAN]),
    "outside": ([[70.0, 70.0, 99.0, 99.0], [-9.0, 0.0, 0.0, 9.0]], [0.9, 0.9]),
    "reversed": ([[9.0, 9.0, 0.0, 0.0]], [0.9]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of worms with masks, 64 × 64 pixels, and an adapter of an untrained model."""
    root = tmp_path_factory.mktemp("few_shot")
    write_worms(root, seed=0, first_index=0, count=4, size=64)
    torch.manual_seed(0)
    cfg = config("MODEL.SAM.WEIGHTS", "embedded")
    write_adapter(root / "a.safetensors", build_amsam(cfg), settings=adapter_settings(cfg), classes=["worm"])
    return root


def finds(boxes: list[list[float]], scores: list[float]) -> None:
    found = Boxes(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores))
    register_detector("useless", lambda weights, device: lambda image: found)


def label(folder: Path, output: Path, *more: str) -> list[bytes]:
    """The labels that detectron2-sam predict writes."""
    predict.main(
        ["--adapter", str(folder / "a.safetensors"), "--input", str(folder / "images"), "--output", str(output), *more]
    )
    return [path.read_bytes() for path in sorted((output / "labels").iterdir())]


@pytest.mark.parametrize("kind", USELESS)
def test_a_detector_without_a_usable_box_means_the_whole_picture(folder: Path, tmp_path: Path, kind: str) -> None:
    """The labels are those of no detector at all, byte for byte."""
    finds(*USELESS[kind])
    found = label(folder, tmp_path / "a", "--detector", "useless")
    assert len(found) == 4 and found == label(folder, tmp_path / "b")


@pytest.mark.parametrize("kind", ["nothing", "no numbers", "outside"])
def test_a_training_with_such_a_detector_ends_and_counts(folder: Path, tmp_path: Path, kind: str) -> None:
    """All images of the test are counted as ones without a box, and their Dice is a number."""
    finds(*USELESS[kind])
    where = {"IMAGES": str(folder / "images"), "MASKS": str(folder / "masks")}
    keys = {
        "MODEL.DEVICE": "cpu",
        "MODEL.AMSAM.IMAGE_SIZE": 64,
        "INPUT.BOXES.SOURCE": "useless",
        "DATASETS.REGISTER": [{"NAME": "bad_few_shot", "FORMAT": "image_masks", **where}],
        "DATASETS.TRAIN": "('bad_few_shot',)",
        "DATASETS.TEST": "('bad_few_shot',)",
        "DATASETS.SHOTS": 2,
        "SOLVER.MAX_ITER": 1,
        "TEST.EVAL_PERIOD": 1,
        "OUTPUT_DIR": tmp_path,
    }
    pairs = [str(word) for pair in keys.items() for word in pair]
    train_net.main(["--config-file", "configs/amsam_T.yaml", "--engine", "fabric", *pairs])
    report = json.loads((tmp_path / "inference" / "bad_few_shot" / "results.json").read_text())
    assert report["results"]["few_shot"]["Dice"] >= 0
    assert report["results"]["few_shot"]["no_box"] == 100


def test_an_adapter_of_another_encoder_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the tool: exit status 2, the file and the reason on one line, and no labels are written."""
    arguments = ["--adapter", str(folder / "a.safetensors"), "--input", str(folder / "images")]
    status = run_tool(
        lambda: predict.main([*arguments, "--output", str(tmp_path / "out"), "MODEL.SAM.WEIGHTS", "random"])
    )
    assert status == 2 and not (tmp_path / "out").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.safetensors was trained beside other frozen weights" in line
