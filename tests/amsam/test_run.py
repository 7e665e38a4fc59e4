"""AM-SAM through detectron2-sam train: both halves of the shots, the weights that the second half chose, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from amsam.adapter import read_adapter
from amsam.data.worms import write_worms
from detectron2_sam.commands import train as train_net
from sam_common.errors import UserError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of worms to learn from and two to test on."""
    root = tmp_path_factory.mktemp("worms")
    for split, first_index, count in (("pool", 0, 6), ("test", 50, 2)):
        write_worms(root / split, seed=0, first_index=first_index, count=count, size=64)
    return root


def arguments(world: Path, output: Path, *more: object, flags: tuple[str, ...] = ()) -> list[str]:
    """A command line that learns from four pictures in six iterations, validating after every second."""
    register = [
        {
            "NAME": f"few_shot_{split}",
            "FORMAT": "image_masks",
            "IMAGES": str(world / split / "images"),
            "MASKS": str(world / split / "masks"),
        }
        for split in ("pool", "test")
    ]
    keys = {
        "MODEL.DEVICE": "cpu",
        "MODEL.AMSAM.IMAGE_SIZE": 64,
        "DATASETS.REGISTER": register,
        "DATASETS.TRAIN": "('few_shot_pool',)",
        "DATASETS.TEST": "('few_shot_test',)",
        "DATASETS.SHOTS": 4,
        "SOLVER.MAX_ITER": 6,
        "TEST.EVAL_PERIOD": 2,
        "OUTPUT_DIR": output,
    }
    pairs = [str(word) for pair in keys.items() for word in pair]
    return ["--config-file", "configs/amsam_T.yaml", "--engine", "fabric", *flags, *pairs, *map(str, more)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def test_it_tests_the_weights_that_the_second_half_chose(world: Path, tmp_path: Path) -> None:
    """The report is of model_best, whose validation no other reached; the prompt and the weights both moved."""
    results = train_net.main(arguments(world, tmp_path))
    report = json.loads((tmp_path / "inference" / "few_shot_test" / "results.json").read_text())
    assert report["checkpoint_choice"] == "best of the validation" and report["images"] == 2
    assert report["results"]["few_shot"]["Dice"] == pytest.approx(results["few_shot_test"]["few_shot"]["Dice"])
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    validated = [line["few_shot/Dice"] for line in lines if "few_shot/Dice" in line][:-1]  # the last is the test
    assert len(validated) == 3
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert best["metrics"]["best"]["value"] == max(validated)
    assert not best.keys() & {"optimizer", "scaler"}
    adapter = read_adapter(tmp_path / "adapter.safetensors")  # for predict
    assert adapter.classes == ["object"]
    assert adapter.content["model"].keys() == best["model"].keys()
    assert all(torch.equal(value, best["model"][name]) for name, value in adapter.content["model"].items())


@pytest.mark.parametrize("gradient", ["first_order", "unrolled"])
def test_resuming_is_not_stopping(world: Path, tmp_path: Path, gradient: str) -> None:
    """A run that ended after four of six iterations and went on has the weights of one that never stopped."""
    more = ("MODEL.AMSAM.GRADIENT", gradient, "SOLVER.CHECKPOINT_PERIOD", 4)
    train_net.main(arguments(world, tmp_path / "whole", *more))
    train_net.main(arguments(world, tmp_path / "parts", *more))
    (tmp_path / "parts" / "last_checkpoint").write_text("model_0000003.pth")
    (tmp_path / "parts" / "model_final.pth").unlink()
    train_net.main(arguments(world, tmp_path / "parts", *more, flags=("--resume",)))
    whole, parts = (weights(tmp_path / run / "model_final.pth") for run in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("MODEL.AMSAM.NUM_CLASSES", 2), "NUM_CLASSES is 2 but data set few_shot_pool has 1"),
        (("DATASETS.SHOTS", 7), "7 shots were asked for, of 6 labelled images"),
        (("SOLVER.ACCUMULATE", 2), "AMSAM trains in one process and one part"),
        (("INPUT.BOXES.SELECT", "best"), "INPUT.BOXES.SELECT is 'best'; choose one of top1, union, all, none"),
        (("MODEL.META_ARCHITECTURE", "PLUG"), "few_shot_pool has masks truth, which PLUG cannot be trained on"),
    ],
)
def test_what_cannot_be_is_told_before_the_training(
    world: Path, tmp_path: Path, more: tuple[object, ...], message: str
) -> None:
    """One line each: classes, shots, parts, a policy nobody knows, a model that learns from other truth."""
    with pytest.raises(UserError, match=message):
        train_net.main(arguments(world, tmp_path / "run", *more))
