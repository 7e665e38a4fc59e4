"""From a configuration to the parts of a run of our own engine: its trainer, and the evaluation of its data sets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from sam_common.config import CfgNode, one_of
from sam_common.contracts import Batch, as_model
from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.loader import build_test_loader, build_train_loader
from sam_common.engine.build import build_backward, build_lr_factor, build_optimizer, build_plan, check_training
from sam_common.engine.build_data import test_set, training_set
from sam_common.engine.build_evaluation import build_validation, check_judged, checkpoint_facts, make_evaluators
from sam_common.engine.checkpoint import Checkpointer
from sam_common.engine.evaluation import copypaste, dataset_facts, evaluate, format_report, write_report
from sam_common.engine.launch import grad_scaler, share_buffers
from sam_common.engine.trainer import BEST, Trainer
from sam_common.evaluation.evaluator import Evaluators, Results

logger = logging.getLogger(__name__)


def register_datasets(cfg: CfgNode) -> None:
    """Makes the builtin data sets and those of `DATASETS.REGISTER` known.

    Raises:
        UserError: an entry is wrong, or `DATASETS.TRAIN` or `.TEST` names an unknown data set.
    """
    catalog.register_builtin()
    catalog.register_from_config(cfg.DATASETS.REGISTER)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        catalog.get(name)


def build_batches(cfg: CfgNode, *, rank: int, world_size: int) -> Callable[[int], Iterable[Batch]]:
    """First iteration -> the training batches of a rank from there on, of all data sets of `DATASETS.TRAIN`."""
    records, mapper = training_set(cfg, [catalog.get(name) for name in cfg.DATASETS.TRAIN])

    def batches(start_iteration: int) -> Iterable[Batch]:
        return build_train_loader(
            records,
            mapper,
            seed=cfg.SEED,
            batch_size=cfg.SOLVER.IMS_PER_BATCH,
            start_iteration=start_iteration,
            rank=rank,
            world_size=world_size,
            parts=cfg.SOLVER.ACCUMULATE,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    return batches


def build_trainer(cfg: CfgNode, fabric: Fabric, model: nn.Module, *, config_file: str) -> Trainer:
    """The trainer of a run that writes to `OUTPUT_DIR`.

    Raises:
        UserError: a value of the configuration, or a data set to train or test on, cannot be used.
    """
    check_training(cfg, model, map(catalog.get, cfg.DATASETS.TRAIN))
    check_evaluation(cfg, model)
    for name in cfg.DATASETS.TEST:  # what is missing would show only after the training
        make_evaluators(catalog.get(name), Path(cfg.OUTPUT_DIR), None, as_model(model).outputs)
    optimizer = build_optimizer(cfg, model)
    backward = build_backward(cfg, model, optimizer, device=fabric.device, world_size=fabric.world_size)
    validate = build_validation(cfg, [catalog.get(name) for name in cfg.DATASETS.TRAIN])
    evaluated = cfg.OUTPUT_DIR if validate is None else str(Path(cfg.OUTPUT_DIR, f"{BEST}.pth"))
    checkpointer = Checkpointer(
        model,
        Path(cfg.OUTPUT_DIR),
        optimizer=optimizer,
        scaler=grad_scaler(fabric),
        config=cfg.dump(),
        config_file=config_file,
    )
    return Trainer(
        fabric,
        model,
        optimizer,
        plan=build_plan(cfg),
        lr_factor=build_lr_factor(cfg),
        batches=build_batches(cfg, rank=fabric.global_rank, world_size=fabric.world_size),
        checkpointer=checkpointer,
        evaluate=partial(evaluate_all, cfg, fabric, model, evaluated),
        validate=None if validate is None else lambda _, stopped: validate(model, fabric.autocast(), stopped),
        backward=backward,
    )


def check_evaluation(cfg: CfgNode, model: nn.Module) -> None:
    """Finds what would stop an evaluation, before it or the training before it begins.

    Args:
        model: with `outputs`, the set of keys of what it makes of an image.

    Raises:
        UserError: `TEST.EVALUATORS` is unknown, or a data set of `DATASETS.TEST` serves nothing that the model makes.
    """
    one_of("TEST.EVALUATORS, without --engine detectron2,", cfg.TEST.EVALUATORS, ("auto",))
    check_judged([catalog.get(name) for name in cfg.DATASETS.TEST], as_model(model).outputs)


def evaluate_all(
    cfg: CfgNode, fabric: Fabric, model: nn.Module, checkpoint: str, iteration: int, stopped: Callable[[], bool]
) -> dict[str, Results] | None:
    """Evaluates every data set of `DATASETS.TEST` as its spec asks, prints tables and writes reports.

    Args:
        model: the bare model, on its device.
        checkpoint, iteration: what is evaluated, for the report; `UNTRAINED` and -1 before a training.

    Returns:
        Data set -> results; None when `stopped()` ended it.
    """
    check_evaluation(cfg, model)
    share_buffers(model)
    facts = {"engine": "fabric", **checkpoint_facts(cfg, checkpoint), "iteration": iteration}
    results: dict[str, Results] = {}
    for name in cfg.DATASETS.TEST:
        outcome = _evaluate_one(cfg, fabric, model, catalog.get(name), facts, stopped)
        if outcome is None:
            return None
        results[name] = outcome
    return results


def _evaluate_one(
    cfg: CfgNode,
    fabric: Fabric,
    model: nn.Module,
    spec: DatasetSpec,
    facts: dict[str, Any],
    stopped: Callable[[], bool],
) -> Results | None:
    folder, seen = Path(cfg.OUTPUT_DIR) / "inference" / spec.name, as_model(model).training_vocabulary or None
    records, mapper = test_set(cfg, spec)
    loader = build_test_loader(
        records,
        mapper,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    evaluators = Evaluators(spec.name, make_evaluators(spec, folder, seen, as_model(model).outputs))
    results = evaluate(as_model(model), loader, evaluators, name=spec.name, autocast=fabric.autocast(), stopped=stopped)
    if results is None:
        return None
    facts = {**dataset_facts(spec, seen), **facts, **evaluators.facts()}
    if fabric.is_global_zero:
        write_report(folder / "results.json", results, facts)
        for line in (format_report(results, facts), *copypaste(results)):
            logger.info(line)
    return results
