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

import plug.method
import possam.method
from detectron2_sam import add_config, register
from detectron2_sam.plugin import lazy
from detectron2_sam.plugin.trainer import Trainer
from sam_common.engine.build import build_lr_factor
from sam_common.errors import UserError
from tests.detectron2_sam.plugin.test_engines import assert_same
from tests.detectron2_sam.plugin.test_mappers import cfg_of
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


SIZES = sorted(path.stem for path in Path("configs/detectron2").glob("p*_[BLHT]*.py"))
"""LazyConfigs that a YAML of the same name describes too."""


def yaml_of(name: str) -> CfgNode:
    cfg = get_cfg()
    add_config(cfg)
    cfg.merge_from_file(f"configs/{name}.yaml")
    cfg.MODEL.SAM.WEIGHTS = "random"
    cfg.MODEL.CLIP.WEIGHTS = "random"
    return cfg


@pytest.mark.parametrize("name", SIZES)
def test_each_file_is_the_yaml_of_its_name(name: str) -> None:
    """The parameters, which of them train and their decay; rate, clipping, schedule, batch, data sets and mappers."""
    register()
    config, cfg = LazyConfig.load(f"configs/detectron2/{name}.py"), yaml_of(name)
    part = config.model.sam if name.startswith("plug") else config.model.backbone.image_encoder
    part.weights = "random"
    if "clip" in config.model:
        config.model.clip.weights = "random"
    with torch.device("meta"):
        ours, theirs = instantiate(config.model), build_model_on_meta(cfg)
    facts = [{n: (p.shape, p.requires_grad) for n, p in model.named_parameters()} for model in (ours, theirs)]
    assert facts[0] == facts[1]
    assert ours.inference == theirs.inference
    solver, params = cfg.SOLVER, config.optimizer.params
    decays = (params.weight_decay, params.weight_decay_norm, params.weight_decay_embed)
    assert decays == (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM, solver.WEIGHT_DECAY_EMBED)
    clip = solver.CLIP_GRADIENTS
    assert config.optimizer.lr == solver.BASE_LR
    assert config.optimizer.get("clip_norm", 0.0) == (clip.CLIP_VALUE if clip.ENABLED else 0.0)
    schedule, factor, steps = instantiate(config.lr_multiplier), build_lr_factor(cfg), solver.MAX_ITER
    moments = range(0, steps, max(1, steps // 1000))
    assert [schedule(i / steps) for i in moments] == pytest.approx([factor(i) for i in moments], abs=1e-9)
    assert (config.train.max_iter, config.train.checkpointer.period) == (steps, solver.CHECKPOINT_PERIOD)
    loaders = config.dataloader
    assert loaders.train.batch_size == solver.IMS_PER_BATCH
    assert (loaders.train.name,) == cfg.DATASETS.TRAIN and (loaders.test.name,) == cfg.DATASETS.TEST
    assert loaders.evaluator.dataset_name == loaders.test.name
    for loader, training in ((loaders.train, True), (loaders.test, False)):
        told = {key: value for key, value in loader.mapper.items() if key not in ("_target_", "vocabulary")}
        if name.startswith("plug"):
            mapped = plug.method.mapper_arguments(cfg, training=training)
            assert {**told, "flip": mapped["flip"]}.items() <= mapped.items()
            assert not training or told["flip"] == mapped["flip"]
        else:
            assert told == {"training": training, **possam.method.mapper_arguments(cfg)}


def build_model_on_meta(cfg: CfgNode) -> torch.nn.Module:
    cfg.MODEL.DEVICE = "meta"
    return build_model(cfg)


def test_plug_trains_as_the_yaml(world: Path, tmp_path: Path) -> None:
    """Two steps of the LazyConfig's parts and of our trainer on the YAML: the same weights to the last bit."""
    config = LazyConfig.load("configs/detectron2/plug_T.py")
    output = ("OUTPUT_DIR", str(tmp_path / "yaml"), "SOLVER.MAX_ITER", 2, "DATASETS.TEST", ())
    cfg = cfg_of("plug_T", "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR", "SOLVER.STEPS", (), *output)
    cfg.merge_from_list(["SOLVER.WARMUP_ITERS", 0])
    ours, model = Trainer(cfg), instantiate(config.model)
    model.load_state_dict(ours.model.state_dict())
    ours.train()
    config.optimizer.params.model = model
    SimpleTrainer(model.train(), instantiate(config.dataloader.train), instantiate(config.optimizer)).train(0, 2)
    assert_same(dict(model.state_dict()), dict(ours.model.state_dict()))


@pytest.mark.parametrize("size", "TBLH")
def test_amsam_is_the_yamls_model_and_is_not_trained_at_one_level(size: str) -> None:
    """Its parameters and which of them train; instantiating its optimizer is an error that says what to use."""
    config, cfg = LazyConfig.load(f"configs/detectron2/amsam_{size}.py"), yaml_of(f"amsam_{size}")
    config.model.sam.weights = "random"
    with torch.device("meta"):
        ours, theirs = instantiate(config.model), build_model_on_meta(cfg)
    facts = [{n: (p.shape, p.requires_grad) for n, p in model.named_parameters()} for model in (ours, theirs)]
    assert facts[0] == facts[1] and ours.select == theirs.select and ours.image_size == theirs.image_size
    assert (config.dataloader.test.name,) == cfg.DATASETS.TEST
    with pytest.raises(UserError, match=r"detectron2_sam\.Trainer"):
        instantiate(config.optimizer)
