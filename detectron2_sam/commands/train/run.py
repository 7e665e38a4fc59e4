"""Training and evaluation with our own engine, from a parsed command line to the files in OUTPUT_DIR."""

from __future__ import annotations

import argparse
import logging
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from detectron2_sam.commands.output_folder import claimed
from detectron2_sam.commands.train.build import build_trainer, evaluate_all, register_datasets
from detectron2_sam.commands.train.log import describe, log_to
from detectron2_sam.methods import full_cfg, methods, own_cfg
from sam_common.config import UNTRAINED, CfgNode
from sam_common.data import catalog
from sam_common.engine.build import check_levels, check_output_dir, run_seed
from sam_common.engine.build_evaluation import checkpoint_to_evaluate
from sam_common.engine.checkpoint import frozen_sha256, last_checkpoint, load_trained, read_checkpoint
from sam_common.engine.launch import (
    choose_device,
    choose_precision,
    is_first_process,
    launch,
    started_by_torchrun,
)
from sam_common.engine.logging import MetricsWriter
from sam_common.errors import Interrupted, UserError
from sam_common.evaluation.evaluator import Results
from sam_common.io.files import write_text
from sam_common.method import build_model, method_of
from sam_common.signals import stop_on_signals

logger = logging.getLogger("detectron2_sam.commands.train")


def setup(args: argparse.Namespace) -> CfgNode:
    """The configuration, checked as far as the command line and the disk allow before any process starts."""
    cfg = full_cfg(args.config_file, args.opts)
    register_datasets(cfg)
    args.num_gpus = processes_here(args.num_gpus, args.num_machines)
    device = choose_device(cfg.MODEL.DEVICE, args.num_gpus)
    _precision(cfg, device)
    if args.eval_only and not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name a data set to evaluate")
    if not args.eval_only:
        check_levels(cfg, device=device, processes=args.num_gpus * args.num_machines)
    if is_first_process(args.machine_rank):
        check_output_dir(cfg, resume=args.resume, eval_only=args.eval_only)
    return own_cfg(cfg)


def processes_here(asked: int, machines: int) -> int:
    """How many processes this machine runs: as `--num-gpus` asks, or as torchrun has started.

    Raises:
        UserError: both say so.
    """
    if not started_by_torchrun():
        return asked
    if asked != 1 or machines != 1:
        raise UserError("torchrun starts the processes: leave out --num-gpus and --num-machines")
    return int(os.environ["LOCAL_WORLD_SIZE"])


def _precision(cfg: CfgNode, device: torch.device) -> torch.dtype:
    return choose_precision(device, cfg.SOLVER.AMP.PRECISION if cfg.SOLVER.AMP.ENABLED else "float32")


def run(fabric: Fabric, cfg: CfgNode, args: argparse.Namespace) -> dict[str, Results]:
    """What every process does: train and evaluate, or only evaluate."""
    methods()
    register_datasets(cfg)
    output = Path(cfg.OUTPUT_DIR)
    directory = output / "inference" if args.eval_only else output
    with claimed(output) if fabric.is_global_zero else nullcontext(), log_to(directory, fabric.global_rank):
        logger.info(describe(fabric, method_of(cfg).kernels(fabric.device)))
        previous = last_checkpoint(output) if args.resume else None
        cfg.SEED = fabric.broadcast(run_seed(cfg.SEED, previous))
        if fabric.is_global_zero:
            write_text(directory / "config.yaml", cfg.dump())
        torch.manual_seed(cfg.SEED)
        model = build_model(cfg)
        if args.eval_only:
            return _evaluate(fabric, cfg, model, checkpoint_to_evaluate(cfg, model, previous))
        if previous is None and cfg.MODEL.WEIGHTS not in ("", UNTRAINED):
            _load(model, cfg.MODEL.WEIGHTS)
        trainer = build_trainer(cfg, fabric, model, config_file=args.config_file)
        if previous is not None:
            trainer.resume(previous)
        if not fabric.is_global_zero:
            return trainer.train()
        iteration, last = trainer.progress.iteration, cfg.SOLVER.MAX_ITER
        with MetricsWriter(directory, iteration=iteration, max_iter=last, device=fabric.device) as writer:
            results = trainer.train(writer)
        method_of(cfg).export(cfg, [catalog.get(name) for name in cfg.DATASETS.TRAIN], model)
        return results


def _load(model: torch.nn.Module, weights: str) -> int:
    content = read_checkpoint(weights)
    load_trained(model, content, weights, frozen=frozen_sha256(model))
    logger.info("loaded %s", weights)
    return content.get("iteration", -1)


def _evaluate(fabric: Fabric, cfg: CfgNode, model: torch.nn.Module, weights: str) -> dict[str, Results]:
    iteration = _load(model, weights) if weights != UNTRAINED else -1
    with stop_on_signals() as stop:
        results = evaluate_all(cfg, fabric, model.to(fabric.device), weights, iteration, lambda: stop.signum > 0)
    if results is None:
        raise Interrupted("the evaluation was stopped; nothing was written", stop.signum)
    return results


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Data set -> task -> metric -> value; the errors are those of the command."""
    cfg = setup(args)
    device = choose_device(cfg.MODEL.DEVICE, args.num_gpus)
    return launch(
        run,
        cfg,
        args,
        device=device,
        processes=args.num_gpus,
        machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        precision=_precision(cfg, device),
    )
