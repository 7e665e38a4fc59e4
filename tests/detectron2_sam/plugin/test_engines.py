"""Two engines, one training: losses, weights, checkpoints."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.modeling import build_model
from PIL import Image
from torch import Tensor

from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.plugin.checkpoint import Checkpointer
from detectron2_sam.plugin.trainer import Trainer
from sam_common.data import catalog
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.errors import UserError
from tests.support.small_cfg import command, small_cfg

NAME = "generated_test_panoptic"


def assert_same(first: Any, second: Any, path: str = "") -> None:
    """Equal to the last bit, whatever the nesting."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            assert_same(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, Tensor):
        assert torch.equal(first, second), path
    else:
        assert first == second, path


def trained(output: Path, name: str = "model_final.pth") -> dict[str, Any]:
    """What training changed: weights, moments of the optimizer, iteration, seed, and the frozen weights' hashes."""
    content = read_checkpoint(output / name)
    return {
        "moments": content["optimizer"]["state"],
        **{key: content[key] for key in ("model", "iteration", "seed", "frozen_sha256")},
    }


def losses(output: Path) -> dict[str, float]:
    """The losses of the first line of metrics.json that has any."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return {key: value for key, value in next(x for x in lines if "total_loss" in x).items() if "loss" in key}


@pytest.fixture
def run(world: Path) -> Any:
    """Runs detectron2-sam train under an engine and gives its output folder."""

    def start(engine: str, name: str, *more: object, flags: tuple[str, ...] = ()) -> Path:
        train_net.main(command(engine, world / name, "DATASETS.TEST", "()", *more, flags=flags))
        return world / name

    return start


def test_one_step_is_the_same_under_both(run: Any) -> None:
    """One batch and seed: every loss, every weight and every moment after the step are equal to the last bit."""
    ours, theirs = (run(engine, engine, "SOLVER.MAX_ITER", 1) for engine in ("fabric", "detectron2"))
    assert losses(ours) == pytest.approx(losses(theirs), rel=1e-6)  # the sum is taken in another order
    assert_same(trained(ours), trained(theirs))


def test_several_steps_are_the_same_under_both(run: Any) -> None:
    """So are the order of the data, its jitter, the learning rate's schedule and the clipping."""
    options = ("SOLVER.WARMUP_ITERS", 2, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01, "DATALOADER.NUM_WORKERS", 1)
    ours, theirs = (run(engine, engine, *options) for engine in ("fabric", "detectron2"))
    assert_same(trained(ours), trained(theirs))


@pytest.mark.parametrize("first", ["fabric", "detectron2"])
@pytest.mark.parametrize("second", ["fabric", "detectron2"])
def test_a_run_goes_on_under_either_engine(run: Any, first: str, second: str) -> None:
    """Two iterations under one, two more under the other or the same: the straight run, to the last bit."""
    straight = run("fabric", "straight")
    parts = run(first, "parts")
    (parts / "last_checkpoint").write_text("model_0000001.pth")
    (parts / "model_final.pth").unlink()
    torch.manual_seed(12345)
    run(second, "parts", flags=("--resume",))
    assert_same(trained(parts), trained(straight))


@pytest.mark.parametrize("engine", ["fabric", "detectron2"])
def test_weights_move_both_ways(run: Any, world: Path, engine: str) -> None:
    """The weights of one engine start and test under the other, with the classes they were trained on."""
    other = {"fabric": "detectron2", "detectron2": "fabric"}[engine]
    weights = run(engine, "first", "SOLVER.MAX_ITER", 1) / "model_final.pth"
    run(other, "second", "SOLVER.MAX_ITER", 1, "SOLVER.BASE_LR", 0.0, "MODEL.WEIGHTS", weights)
    assert_same(trained(world / "first")["model"], trained(world / "second")["model"])
    train_net.main(command(other, world / "test", "MODEL.WEIGHTS", weights, flags=("--eval-only",)))
    assert (world / "test" / "inference" / "log.txt").is_file()


def test_stock_checkpointer_and_trainer_work_with_the_model(world: Path, tmp_path: Path) -> None:
    """A pipeline on Detectron2's own trainer and checkpointer, with our model in its YAML and our loader.

    Its file, of the trained part only, is then read by our checkpointer and by its own, into fresh models.
    """

    class Stock(DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg: Any) -> Any:
            return Trainer.build_train_loader(cfg)

        @classmethod
        def build_evaluator(cls, cfg: Any, name: str) -> Any:
            return Trainer.build_evaluator(cfg, name)

    cfg = small_cfg(tmp_path / "stock", SOLVER__MAX_ITER=2, SOLVER__AMP__ENABLED=False)
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"  # the whole model's norm is our trainer's
    cfg.DATASETS.TEST = ()
    cfg.TEST.EVAL_PERIOD = 0
    default_setup(cfg, None)
    trainer = Stock(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()

    fresh = build_model(cfg)
    Checkpointer(fresh).load(str(tmp_path / "stock" / "model_final.pth"))
    assert_same(dict(fresh.state_dict()), dict(trainer.model.state_dict()))
    assert fresh.training_vocabulary
    again = build_model(cfg)
    DetectionCheckpointer(again).load(str(tmp_path / "stock" / "model_final.pth"))
    assert_same(dict(again.state_dict()), dict(fresh.state_dict()))


def test_a_gradient_that_is_not_finite_ends_the_run_before_the_step(world: Path, tmp_path: Path) -> None:
    """The weights stay as they were, and nothing is saved over a good checkpoint."""
    trainer = Trainer(small_cfg(tmp_path / "run", DATASETS__TEST=(), SOLVER__CHECKPOINT_PERIOD=1))
    before = {key: value.clone() for key, value in trainer.model.state_dict().items() if key != "_extra_state"}
    parameter = next(p for p in trainer.model.parameters() if p.requires_grad)
    parameter.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(FloatingPointError, match=r"not finite.*--resume"):
        trainer.train()
    after = trainer.model.state_dict()
    assert_same(before, {key: after[key] for key in before})
    assert not list((tmp_path / "run").glob("*.pth"))


def test_a_subclass_may_bring_its_own_loader_and_evaluator(world: Path, tmp_path: Path) -> None:
    """`build_train_loader` and `build_evaluator` are Detectron2's ways to change a trainer, and ours obeys."""
    asked = []

    class Mine(Trainer):
        @classmethod
        def build_train_loader(cls, cfg: Any) -> Any:
            return list(itertools.islice(Trainer.build_train_loader(cfg), cfg.SOLVER.MAX_ITER))

        @classmethod
        def build_evaluator(cls, cfg: Any, name: str) -> Any:
            asked.append(name)
            return Trainer.build_evaluator(cfg, name)

    trainer = Mine(small_cfg(tmp_path / "run", SOLVER__MAX_ITER=2))
    trainer.train()
    assert asked == [NAME]


@pytest.mark.parametrize("kind", ["instance", "semantic"])
def test_data_sets_of_any_kind_train_by_name(kind: str, world: Path, tmp_path: Path) -> None:
    """What a user of Detectron2 registered, of things or of stuff, is trained on through our trainer."""
    scenes = catalog.get("generated_train_panoptic").load()
    polygon = [[8.0, 8.0, 40.0, 8.0, 40.0, 40.0, 8.0, 40.0]]
    annotation = {"bbox": [8.0, 8.0, 32.0, 32.0], "bbox_mode": 1, "category_id": 1, "segmentation": polygon}
    Image.fromarray(np.tile(np.array([[0, 1], [1, 255]], dtype=np.uint8), (32, 32))).save(tmp_path / "labels.png")
    truth = {"instance": {"annotations": [annotation]}, "semantic": {"sem_seg_file_name": str(tmp_path / "labels.png")}}
    DatasetCatalog.register("users_own", lambda: [{"file_name": scene["file_name"], **truth[kind]} for scene in scenes])
    classes = {"instance": {"thing_classes": ["dog", "cat"]}, "semantic": {"stuff_classes": ["sky", "sea"]}}
    MetadataCatalog.get("users_own").set(**classes[kind])
    try:
        trainer = Trainer(
            small_cfg(tmp_path / "run", DATASETS__TRAIN=("users_own",), DATASETS__TEST=(), SOLVER__MAX_ITER=2)
        )
        trainer.train()
    finally:
        DatasetCatalog.remove("users_own")
        MetadataCatalog.remove("users_own")
    assert [c.is_thing for c in trainer.model.training_vocabulary] == [kind == "instance"] * 2
    assert losses(tmp_path / "run")["loss_mask"] > 0


def test_two_cpu_processes_train(run: Any, world: Path) -> None:
    """Detectron2's own launch, two processes on the CPU: finite losses, one checkpoint, one report of both images."""
    more = ("DATASETS.TEST", f"('{NAME}',)")
    output = run("detectron2", "two", *more, flags=("--num-gpus", "2"))
    assert trained(output)["iteration"] == 3
    assert all(math.isfinite(value) for value in losses(output).values())
    report = json.loads((output / "inference" / NAME / "results.json").read_text())
    assert report["engine"] == "detectron2" and report["results"]["panoptic_seg"]["PQ"] >= 0
    assert len(list((output / "inference" / NAME / "predictions").glob("*.png"))) == 2


def test_files_that_are_not_ours_to_trust_are_refused(world: Path, tmp_path: Path) -> None:
    """Pickles and addresses are never loaded; the message says what is."""
    model = torch.nn.Linear(1, 1)
    for path in ("R-50.pkl", "detectron2://ImageNetPretrained/MSRA/R-50.pkl", "https://example.org/model.pth"):
        with pytest.raises(UserError, match="never pickles"):
            Checkpointer(model).load(path)
    with pytest.raises(UserError, match=r"there is no checkpoint nowhere\.pth"):
        Checkpointer(model).load("nowhere.pth")


def test_mistakes_are_one_line(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same mistakes have the same messages as under our own engine, before anything starts."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    cases = {
        "nearest known one is SOLVER.BASE_LR": command("detectron2", tmp_path / "run", "SOLVER.BASE_RL", 1),
        "unknown data set 'nowhere'": command("detectron2", tmp_path / "run", "DATASETS.TEST", "('nowhere',)"),
        "is not empty": command("detectron2", tmp_path / "full"),
        "torch sees 0 CUDA": command("detectron2", tmp_path / "run", "MODEL.DEVICE", "cuda"),
        "do not accumulate": command("detectron2", tmp_path / "run", "SOLVER.ACCUMULATE", 2),
        "AMPTrainer cannot train": command("detectron2", tmp_path / "run", "SOLVER.AMP.PRECISION", "bf16"),
        "a CPU trains in float32 or bf16": command("detectron2", tmp_path / "run", "SOLVER.AMP.PRECISION", "fp16"),
        "are required: --config/--config-file": ["--engine", "detectron2"],
        "TEST.EVALUATORS is 'other'": command("detectron2", tmp_path / "run", "TEST.EVALUATORS", "other"),
        "'PosSAMM' is not in": command("detectron2", tmp_path / "run", "MODEL.META_ARCHITECTURE", "PosSAMM"),
        "IMS_PER_BATCH 3 must be": command(
            *("detectron2", tmp_path / "run", "SOLVER.IMS_PER_BATCH", 3), flags=("--num-gpus", "2")
        ),
        "NUM_WORKERS is -1": command("detectron2", tmp_path / "run", "DATALOADER.NUM_WORKERS", -1),
        "MAX_ITER is 0": command("detectron2", tmp_path / "run", "SOLVER.MAX_ITER", 0),
        "DATASETS.TEST is empty": command(
            *("detectron2", tmp_path / "run", "DATASETS.TEST", "()"), flags=("--eval-only",)
        ),
        "2 machines need tcp://": command("detectron2", tmp_path / "run", flags=("--num-machines", "2")),
    }
    if torch.cuda.is_available():
        del cases["torch sees 0 CUDA"]
    for message, arguments in cases.items():
        assert run_tool(lambda arguments=arguments: train_net.main(arguments)) == 2
        error = capsys.readouterr().err
        assert message in error and error.splitlines()[-1].startswith("error: "), error


def test_activation_checkpointing_is_the_same_under_both(run: Any) -> None:
    """The key works under Detectron2 too, and changes neither a weight nor its name."""
    key = "MODEL.POSSAM.ACTIVATION_CHECKPOINTING"
    ours = run("fabric", "without", "SOLVER.MAX_ITER", 1)
    theirs = run("detectron2", "with", "SOLVER.MAX_ITER", 1, key, True)
    assert_same(trained(ours), trained(theirs))


def test_a_run_leaves_what_detectron2_leaves(run: Any) -> None:
    """Its files, and which engine ran in the log."""
    output = run("detectron2", "run")
    names = {path.name for path in output.iterdir() if "tfevents" not in path.name}
    assert names == {
        *(".lock", "config.yaml", "log.txt", "metrics.json", "last_checkpoint"),
        *("model_0000001.pth", "model_0000003.pth", "model_final.pth"),
    }
    assert "engine: detectron2 0." in (output / "log.txt").read_text()
