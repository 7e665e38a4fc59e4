"""The LazyConfig of PosSAM, through Detectron2's own LazyConfig API: the model, data and steps of the YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.engine import SimpleTrainer
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model

from detectron2_sam import add_config
from detectron2_sam.plugin import lazy
from detectron2_sam.plugin.trainer import Trainer
from sam_common.engine.build import build_lr_factor
from tests.detectron2_sam.plugin.test_engines import assert_same
from tests.support.small_cfg import small_cfg


@pytest.fixture
def config(world: Path, tmp_path: Path) -> Any:
    """The shipped file, with the changes that `small_cfg` makes to the YAML."""
    config = LazyConfig.load("configs/detectron2/possam_T.py")
    small = {"image_size": 64, "min_size_test": 64, "max_size_test": 64}
    words = [f"dataloader.{part}.mapper.{key}={value}" for part in ("train", "test") for key, value in small.items()]
    words += ["model.image_size=64", "model.criterion.num_points=64", "model.criterion.matcher.num_points=64"]
    words += ["dataloader.train.batch_size=2", "train.max_iter=2", f"train.output_dir={tmp_path / 'lazy'}"]
    return LazyConfig.apply_overrides(config, words)


@pytest.fixture
def cfg(world: Path, tmp_path: Path) -> CfgNode:
    constant = {"SOLVER__LR_SCHEDULER_NAME": "WarmupMultiStepLR", "SOLVER__STEPS": (), "SOLVER__WARMUP_ITERS": 0}
    return small_cfg(tmp_path / "yaml", SOLVER__MAX_ITER=2, **constant)


def test_it_describes_the_model_of_the_yaml(config: Any, cfg: CfgNode) -> None:
    """Every weight, frozen or not, drawn from one seed, to the last bit; and the same of it trains."""
    models = []
    for build in (lambda: instantiate(config.model), lambda: build_model(cfg)):
        torch.manual_seed(0)
        models.append(build())
    ours, theirs = ({name: p for name, p in model.named_parameters()} for model in models)
    assert_same(ours, theirs)
    assert {n for n, p in ours.items() if p.requires_grad} == {n for n, p in theirs.items() if p.requires_grad}
    assert models[0].inference == models[1].inference


def test_it_trains_and_is_judged_as_the_yaml(config: Any, cfg: CfgNode) -> None:
    """Two steps as Detectron2's tools/lazyconfig_train_net.py takes them, and its evaluation: from the same weights the
    same batches, gradients, decay and clipping, so the same weights to the last bit, and the same numbers."""
    ours = Trainer(cfg)
    model = build_model(cfg)
    model.load_state_dict(ours.model.state_dict())
    ours.train()
    config.optimizer.params.model = model
    trainer = SimpleTrainer(model.train(), instantiate(config.dataloader.train), instantiate(config.optimizer))
    trainer.train(0, config.train.max_iter)
    assert_same(dict(model.state_dict()), dict(ours.model.state_dict()))
    found = inference_on_dataset(model, instantiate(config.dataloader.test), instantiate(config.dataloader.evaluator))
    expected = ours._last_eval_results["panoptic_seg"]
    shared = {key: value for key, value in expected.items() if key in found["panoptic_seg"]}
    assert found["panoptic_seg"] == pytest.approx(shared, abs=0, nan_ok=True) and "PQ" in shared
    assert (Path(config.train.output_dir) / "inference" / "predictions").is_dir()


def test_its_schedule_is_that_of_the_yaml() -> None:
    """The rates of all 1300 iterations, the warm-up included."""
    cfg = get_cfg()
    add_config(cfg)
    cfg.merge_from_file("configs/possam_T.yaml")
    schedule = instantiate(LazyConfig.load("configs/detectron2/possam_T.py").lr_multiplier)
    ours, steps = build_lr_factor(cfg), cfg.SOLVER.MAX_ITER
    assert [schedule(i / steps) for i in range(steps)] == pytest.approx([ours(i) for i in range(steps)], abs=1e-9)


def test_a_gradient_that_is_not_finite_is_no_step() -> None:
    """Error: with clipping and without, the weights stay as they are."""
    for clip_norm in (0.0, 0.1):
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = lazy.adamw([{"params": [weight]}], lr=0.1, clip_norm=clip_norm)
        weight.grad = torch.tensor([1.0, torch.nan])
        with pytest.raises(FloatingPointError, match="not finite"):
            optimizer.step()
        assert torch.equal(weight.detach(), torch.ones(2))
