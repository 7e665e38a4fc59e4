"""PosSAM itself, with the embedded encoders, through the real tools: drawn world, training, evaluation, prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detectron2_sam.commands import predict
from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.prepare.generated import prepare
from sam_common.engine.checkpoint import read_checkpoint


def arguments(output: Path, *more: str, flags: tuple[str, ...] = ()) -> list[str]:
    """A command line that trains possam_T for three iterations of two pictures, 64 pixels wide."""
    base = {
        "MODEL.DEVICE": "cpu",
        "INPUT.IMAGE_SIZE": "64",
        "INPUT.MIN_SIZE_TEST": "64",
        "INPUT.MAX_SIZE_TEST": "64",
        "MODEL.POSSAM.LOSS.NUM_POINTS": "64",
        "SOLVER.IMS_PER_BATCH": "2",
        "SOLVER.MAX_ITER": "3",
        "SOLVER.CHECKPOINT_PERIOD": "2",
        "OUTPUT_DIR": str(output),
    }
    pairs = [word for pair in base.items() for word in pair]
    return ["--config-file", "configs/possam_T.yaml", "--engine", "fabric", *flags, *pairs, *more]


def test_train_resume_evaluate_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming after iteration 2 of 3 gives the straight run's weights, moments and PQ to the last bit.

    The checkpoint then serves `detectron2-sam predict`, which draws a test picture with words of the user's.
    """
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    prepare(tmp_path, train=4, test=2, size=64)
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    results = train_net.main(arguments(straight))
    train_net.main(arguments(parts, "DATASETS.TEST", "()"))
    (parts / "last_checkpoint").write_text("model_0000001.pth")
    (parts / "model_final.pth").unlink()
    torch.manual_seed(12345)
    again = train_net.main(arguments(parts, flags=("--resume",)))

    first, second = (read_checkpoint(output / "model_final.pth") for output in (straight, parts))
    assert first["iteration"] == second["iteration"] == 2 and first["skipped"] == 0
    for name, value in first["model"].items():
        equal = torch.equal(value, second["model"][name]) if isinstance(value, torch.Tensor) else True
        assert equal, name
    for index, state in first["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, second["optimizer"]["state"][index][name]), (index, name)
    metrics = results["generated_test_panoptic"]["panoptic_seg"]
    assert again["generated_test_panoptic"]["panoptic_seg"] == pytest.approx(metrics, abs=0, nan_ok=True)
    assert metrics.keys() >= {"PQ", "SQ", "RQ", "PQ_th", "PQ_st", "PQ_seen"}

    picture = next((tmp_path / "generated" / "images" / "test").iterdir())
    words = ("--vocabulary", "plain red star, dotted blue ring; grass|lawn, sky:stuff")
    weights = ("--weights", str(straight / "model_final.pth"))
    inputs = ("--input", str(picture), "--output", str(tmp_path / "out"))
    assert predict.main(["--config-file", str(straight / "config.yaml"), *weights, *inputs, *words]) == 0
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [category["name"] for category in content["categories"]] == [
        *("plain red star", "dotted blue ring", "grass", "sky")
    ]
    assert (tmp_path / "out" / f"{picture.stem}.png").is_file()
