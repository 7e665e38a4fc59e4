"""AM-SAM's two learning rates in a real training: each from its own start, both towards zero."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amsam.data.worms import write_worms
from detectron2_sam.commands import train as train_net


def test_both_rates_step(tmp_path: Path) -> None:
    """In iteration i of T = 4 the rates are 5e-3 and 1e-3 times (1 - i / T)^0.9, the prompt's in a group of its own."""
    write_worms(tmp_path / "data", seed=0, first_index=0, count=2, size=64)
    where = {"IMAGES": str(tmp_path / "data" / "images"), "MASKS": str(tmp_path / "data" / "masks")}
    keys = {
        "MODEL.DEVICE": "cpu",
        "MODEL.AMSAM.IMAGE_SIZE": 64,
        "DATASETS.REGISTER": [{"NAME": "scheduled", "FORMAT": "image_masks", **where}],
        "DATASETS.TRAIN": "('scheduled',)",
        "DATASETS.TEST": "()",
        "DATASETS.SHOTS": 2,
        "SOLVER.MAX_ITER": 4,
        "SOLVER.CHECKPOINT_PERIOD": 2,
        "TEST.EVAL_PERIOD": 4,
        "OUTPUT_DIR": tmp_path / "run",
    }
    pairs = [str(word) for pair in keys.items() for word in pair]
    train_net.main(["--config-file", "configs/amsam_T.yaml", "--engine", "fabric", *pairs])
    for file, iteration in (("model_0000001.pth", 1), ("model_final.pth", 3)):
        groups = torch.load(tmp_path / "run" / file, weights_only=True)["optimizer"]["param_groups"]
        factor = (1 - iteration / 4) ** 0.9
        assert [group["lr"] for group in groups if group["kind"] == "upper"] == [pytest.approx(1e-3 * factor)]
        others = [group["lr"] for group in groups if group["kind"] != "upper"]
        assert others == pytest.approx([5e-3 * factor] * len(others)) and others
