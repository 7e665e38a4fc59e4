"""PLUG itself, on the embedded SAM, through the real tools: drawn world, training, resuming, processes, evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.prepare.generated import prepare
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.errors import UserError
from tests.support.workers import quick_start


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Five scenes to train on, two to test on, 64 pixels wide."""
    root = tmp_path_factory.mktemp("world")
    prepare(root, train=5, test=2, size=64)
    with pytest.MonkeyPatch.context() as patch, quick_start():
        patch.setenv("DETECTRON2_DATASETS", str(root))
        yield root


def arguments(output: Path, *more: str, flags: tuple[str, ...] = ()) -> list[str]:
    """A command line that trains plug_T for three iterations of four groups, in crops of 32 pixels.

    It names the files: processes may be started by a server that knows the environment of an earlier test only.
    """
    folder = Path(os.environ["DETECTRON2_DATASETS"], "generated")
    files = {split: (folder / f"amodal_{split}.json", folder / "images" / split) for split in ("train", "test")}
    entries = [
        {"NAME": f"scenes_{split}", "FORMAT": "coco_amodal", "JSON": str(json_file), "IMAGES": str(images)}
        for split, (json_file, images) in files.items()
    ]
    base = {
        "DATASETS.REGISTER": str(entries),
        "DATASETS.TRAIN": "('scenes_train',)",
        "DATASETS.TEST": "('scenes_test',)",
        "MODEL.DEVICE": "cpu",
        "MODEL.PLUG.CROP_SIZE": "32",
        "MODEL.PLUG.NUM_POINTS": "32",
        "MODEL.PLUG.REFINE_WIDTH": "4",
        "SOLVER.WARMUP_ITERS": "0",
        "SOLVER.IMS_PER_BATCH": "4",
        "SOLVER.MAX_ITER": "3",
        "SOLVER.CHECKPOINT_PERIOD": "2",
        "INPUT.INSTANCES_PER_IMAGE": "2",
        "OUTPUT_DIR": str(output),
    }
    pairs = [word for pair in base.items() for word in pair]
    return ["--config-file", "configs/plug_T.yaml", "--engine", "fabric", *flags, *pairs, *more]


def assert_equal(one: Any, other: Any) -> None:
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name
    for index, state in one["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, other["optimizer"]["state"][index][name]), (index, name)


def resume(folder: Path, *more: str, flags: tuple[str, ...] = ()) -> Any:
    """Goes back to iteration 2 of 3 and on from there."""
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    (folder / "model_final.pth").unlink()
    torch.manual_seed(12345)
    return train_net.main(arguments(folder, *more, flags=("--resume", *flags)))


def test_train_resume_evaluate(world: Path, tmp_path: Path) -> None:
    """Resuming gives the straight run's weights, moments, batch statistics and results to the last bit."""
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    results = train_net.main(arguments(straight))
    train_net.main(arguments(parts, "DATASETS.TEST", "()"))
    again = resume(parts)
    one, other = (read_checkpoint(folder / "model_final.pth") for folder in (straight, parts))
    assert_equal(one, other)
    assert one["model"]["refine.blocks.0.residual.1.num_batches_tracked"] == 3
    assert not one["model"]["refine.blocks.0.residual.1.running_mean"].eq(0).all()
    assert not any("blocks.0.attn.qkv.qkv" in name for name in one["model"])  # SAM's own weights are not saved
    tasks = results["scenes_test"]
    for task, metrics in tasks.items():
        assert again["scenes_test"][task] == pytest.approx(metrics, abs=0, nan_ok=True), task
    assert tasks["amodal"]["n"] > 0 and "no gradient" not in (straight / "log.txt").read_text()

    weights = ("MODEL.WEIGHTS", str(straight / "model_final.pth"), "MODEL.PLUG.TEST.MERGED", "False")
    only = train_net.main(arguments(straight, *weights, flags=("--eval-only",)))["scenes_test"]
    assert only["amodal"]["mIoU_full"] == pytest.approx(tasks["amodal"]["mIoU_full"], abs=0.5)


def test_two_processes_and_parts_train_as_one(world: Path, tmp_path: Path) -> None:
    """Without the refine module, whose statistics are of a share: losses and gradients within 1e-5, in two real
    processes whose groups hold different numbers of objects, and in two that do their share in parts."""
    off = ("MODEL.PLUG.REFINE", "False", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", "2", "SOLVER.BASE_LR", "1e-4")
    train_net.main(arguments(tmp_path / "one", *off))
    train_net.main(arguments(tmp_path / "two", *off, flags=("--num-gpus", "2")))
    more = ("SOLVER.ACCUMULATE", "2", "MODEL.PLUG.ACTIVATION_CHECKPOINTING", "True")
    train_net.main(arguments(tmp_path / "parts", *off, *more, flags=("--num-gpus", "2")))
    assert "processes: 2" in (tmp_path / "two" / "log.txt").read_text()
    one = outcome(tmp_path / "one")
    for name in ("two", "parts"):
        torch.testing.assert_close(outcome(tmp_path / name), one, rtol=1e-5, atol=1e-5)


def outcome(folder: Path) -> tuple[dict[str, float], dict[Any, Any]]:
    """Mean losses of both iterations, and the optimizer's moments: they are the gradients."""
    line = json.loads((folder / "metrics.json").read_text().splitlines()[0])
    content = read_checkpoint(folder / "model_final.pth")
    return {k: v for k, v in line.items() if "loss" in k}, content["optimizer"]["state"]


def test_two_processes_resume_and_evaluate_alike(world: Path, tmp_path: Path) -> None:
    """With batch statistics: two processes resumed are two processes that went on; both evaluate the first one's."""
    two = ("--num-gpus", "2")
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    results = train_net.main(arguments(straight, flags=two))["scenes_test"]
    train_net.main(arguments(parts, "DATASETS.TEST", "()", flags=two))
    resume(parts, "DATASETS.TEST", "()", flags=two)
    assert_equal(*(read_checkpoint(folder / "model_final.pth") for folder in (straight, parts)))
    weights = ("MODEL.WEIGHTS", str(straight / "model_final.pth"))
    alone = train_net.main(arguments(straight, *weights, flags=("--eval-only",)))["scenes_test"]
    for task, metrics in results.items():
        assert alone[task] == pytest.approx(metrics, nan_ok=True), task


def test_vanilla_sam_is_evaluated_and_not_trained(world: Path, tmp_path: Path) -> None:
    """Table 2, row 1, without weights and without a warning of an untrained model; training it is one line."""
    vanilla = ("MODEL.META_ARCHITECTURE", "VanillaSAM")
    results = train_net.main(arguments(tmp_path, *vanilla, flags=("--eval-only",)))["scenes_test"]
    assert results["amodal"]["n"] > 0
    assert "untrained model" not in (tmp_path / "inference" / "log.txt").read_text()
    with pytest.raises(UserError, match="VanillaSAM has nothing to train; evaluate it with --eval-only"):
        train_net.main(arguments(tmp_path / "train", *vanilla))


def test_a_model_and_data_that_do_not_fit(world: Path, tmp_path: Path) -> None:
    """Panoptic truth for PLUG, or two kinds of truth at once, is one line before the training."""
    for names, message in (
        ("('generated_train_panoptic',)", "has panoptic truth, which PLUG cannot be trained on"),
        ("('scenes_train', 'generated_train_panoptic')", "panoptic truth, which PLUG"),
    ):
        with pytest.raises(UserError, match=message):
            train_net.main(arguments(tmp_path / str(len(names)), "DATASETS.TRAIN", names))
