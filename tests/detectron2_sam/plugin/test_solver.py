"""Our optimizer and schedules under Detectron2's own trainers."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import build_detection_train_loader
from detectron2.engine import DefaultTrainer, defaults
from detectron2.modeling import build_model
from detectron2.solver import build as stock

import detectron2_sam
from detectron2_sam import AmodalMapper, SegmentationMapper, training_records
from detectron2_sam.plugin.trainer import Trainer
from sam_common.errors import UserError
from tests.detectron2_sam.plugin.test_engines import assert_same
from tests.detectron2_sam.plugin.test_mappers import cfg_of

MAPPERS = {"possam_T": SegmentationMapper, "plug_T": AmodalMapper}


def two_steps(config: str, output: Path, *options: Any) -> CfgNode:
    small = ("INPUT.IMAGE_SIZE", 64, "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 64)
    run = ("SOLVER.MAX_ITER", 2, "SOLVER.AMP.ENABLED", False, "OUTPUT_DIR", str(output), "DATASETS.TEST", ())
    return cfg_of(config, *small, "MODEL.POSSAM.LOSS.NUM_POINTS", 64, *run, *options)


def loader_of(cfg: CfgNode, config: str) -> Any:
    records, mapper = training_records(cfg), MAPPERS[config](cfg, True)
    return build_detection_train_loader(cfg, mapper=mapper, dataset=records, num_workers=0)


@pytest.mark.parametrize("config", list(MAPPERS))
def test_detectron2s_default_trainer_trains_as_ours(
    world: Path, tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same weights on the same batches, the same weights to the last bit: optimizer, rates and clipping."""
    batches = [next(iter(loader_of(two_steps(config, tmp_path), config)))] * 2
    for trainer_class in (DefaultTrainer, Trainer):
        monkeypatch.setattr(trainer_class, "build_train_loader", classmethod(lambda cls, cfg: batches))
    states = []
    for trainer_class in (DefaultTrainer, Trainer):
        torch.manual_seed(0)
        trainer = trainer_class(two_steps(config, tmp_path / trainer_class.__name__))
        before = [parameter.clone() for parameter in trainer.model.parameters() if parameter.requires_grad]
        trainer.train()
        after = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
        states.append((dict(trainer.model.state_dict()), trainer.optimizer.param_groups))
    (theirs, their_groups), (ours, our_groups) = states
    assert [group["lr"] for group in their_groups] == [group["lr"] for group in our_groups]
    assert_same(
        {k: v for k, v in theirs.items() if torch.is_tensor(v)}, {k: v for k, v in ours.items() if torch.is_tensor(v)}
    )


def plain_train_net() -> ModuleType:
    path = Path(os.environ.get("BENCH_PEERS", ""), "detectron2", "tools", "plain_train_net.py")
    if not path.is_file():
        pytest.skip("BENCH_PEERS names no folder with a clone of Detectron2")
    spec = importlib.util.spec_from_file_location("plain_train_net", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


@pytest.mark.parametrize("config", list(MAPPERS))
def test_plain_train_net_trains(world: Path, tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectron2's plainest loop, with the mapper's line: two steps, and a checkpoint of what trains."""
    tool, cfg = plain_train_net(), two_steps(config, tmp_path)
    monkeypatch.setattr(tool, "build_detection_train_loader", lambda cfg: loader_of(cfg, config))
    model = build_model(cfg)
    tool.do_train(cfg, model)
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["model"].keys() == model.state_dict().keys() and saved["iteration"] == 1


def test_other_models_get_detectron2s_own() -> None:
    """SGD and its schedule, for a model that is none of ours; the functions stand wherever Detectron2 has them."""
    detectron2_sam.register()
    assert defaults.build_optimizer is stock.build_optimizer
    cfg = get_cfg()
    assert isinstance(stock.build_optimizer(cfg, torch.nn.Linear(1, 1)), torch.optim.SGD)
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    with pytest.raises(ValueError, match="Unknown LR scheduler"):
        stock.build_lr_scheduler(cfg, torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1))


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("amsam_T", (), "two levels"),
        ("plug_T", ("SOLVER.AMP.ENABLED", True), "SOLVER.AMP.ENABLED False"),
        ("plug_T", ("SOLVER.ACCUMULATE", 2), "SOLVER.ACCUMULATE is 2"),
    ],
)
def test_what_detectron2s_trainers_cannot_do_is_said(
    world: Path, tmp_path: Path, config: str, options: Any, message: str
) -> None:
    """Before the first step, never a training of another kind."""
    cfg = two_steps(config, tmp_path, *options)
    with pytest.raises(UserError, match=message):
        stock.build_optimizer(cfg, build_model(cfg))
