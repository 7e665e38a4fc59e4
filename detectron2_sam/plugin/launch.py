"""`detectron2-sam train --engine detectron2`: Detectron2's setup, processes and trainer, our YAML."""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import detectron2
import detectron2.config
import torch
from detectron2.engine import default_setup, launch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from detectron2_sam.commands.output_folder import claimed
from detectron2_sam.methods import own_cfg
from detectron2_sam.plugin.amodal_detector import is_amodal_detector
from detectron2_sam.plugin.checkpoint import Checkpointer
from detectron2_sam.plugin.compat import amp_precision
from detectron2_sam.plugin.config import add_config
from detectron2_sam.plugin.datasets import register_datasets, spec_of
from detectron2_sam.plugin.detector import load_detector
from detectron2_sam.plugin.evaluation import CHOICES as EVALUATOR_CHOICES
from detectron2_sam.plugin.levels import bare
from detectron2_sam.plugin.registration import PARTS, register
from detectron2_sam.plugin.trainer import Trainer
from sam_common.config import CfgNode, find_config, one_of
from sam_common.engine.build import check_levels, check_output_dir, run_seed
from sam_common.engine.build_evaluation import check_judged, checkpoint_to_evaluate
from sam_common.engine.checkpoint import last_checkpoint
from sam_common.engine.launch import choose_device, is_first_process, meeting_point, started_by_torchrun
from sam_common.errors import UserError
from sam_common.method import find_method

logger = logging.getLogger("detectron2_sam")


def setup(args: argparse.Namespace) -> detectron2.config.CfgNode:
    """The configuration, checked as far as the command line and the disk allow before any process starts.

    Raises:
        UserError: a key, a value, a data set, a device or the output folder cannot be used.
    """
    args.config_file = str(find_config(args.config_file))
    cfg = CfgNode(detectron2.config.get_cfg())  # ours reads plain YAML only and names the nearest key
    add_config(cfg)
    cfg.MODEL.DEVICE = "auto"
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts or [])
    register_datasets(cfg.DATASETS.REGISTER)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        spec_of(name)
    cfg.MODEL.DEVICE = str(choose_device(cfg.MODEL.DEVICE, args.num_gpus))
    meeting_point(args.dist_url, args.num_machines, args.machine_rank)
    _check_engine(cfg)
    _check_values(cfg, args)
    if is_first_process(args.machine_rank):
        check_output_dir(cfg, resume=args.resume, eval_only=args.eval_only)
    return detectron2.config.CfgNode(cfg)


def _check_engine(cfg: CfgNode) -> None:
    """Refuses what Detectron2's engine has no place for."""
    if started_by_torchrun():
        raise UserError("torchrun: Detectron2 starts its processes itself; use its --num-gpus, or --engine fabric")
    if cfg.SOLVER.ACCUMULATE != 1:
        raise UserError(
            f"SOLVER.ACCUMULATE is {cfg.SOLVER.ACCUMULATE}: Detectron2's trainers do not accumulate gradients; "
            "set it to 1, or choose --engine fabric"
        )
    amp_precision(cfg)


def _check_values(cfg: CfgNode, args: argparse.Namespace) -> None:
    """What Detectron2 would answer with a traceback, or only when the training is over."""
    register()
    if cfg.MODEL.META_ARCHITECTURE not in META_ARCH_REGISTRY:
        ours = ", ".join(sorted(part.__name__ for registry, part in PARTS if registry is META_ARCH_REGISTRY))
        raise UserError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r} is not in Detectron2's registry, which has "
            f"{ours} of this project: choose --engine fabric"
        )
    one_of("TEST.EVALUATORS", cfg.TEST.EVALUATORS, EVALUATOR_CHOICES)
    if cfg.DATALOADER.NUM_WORKERS < 0:
        raise UserError(f"DATALOADER.NUM_WORKERS is {cfg.DATALOADER.NUM_WORKERS}; give at least 0")
    if is_amodal_detector(cfg) and not args.eval_only:
        raise UserError(
            "AmodalDetector is evaluated here: train its detector with Detectron2's own tools/train_net.py, and PLUG "
            f"with its configuration, {cfg.MODEL.AMODAL_DETECTOR.PLUG_CONFIG}"
        )
    if args.eval_only and not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name a data set to evaluate")
    processes = args.num_gpus * args.num_machines
    if not args.eval_only:
        check_levels(cfg, device=torch.device(cfg.MODEL.DEVICE), processes=processes)
    if not args.eval_only and (cfg.SOLVER.IMS_PER_BATCH < 1 or cfg.SOLVER.IMS_PER_BATCH % processes):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} must be a positive multiple of the {processes} processes"
        )
    if not args.eval_only and cfg.SOLVER.MAX_ITER < 1:
        raise UserError(f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; give at least 1, or --eval-only")


def run(cfg: detectron2.config.CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    """What every process does: train and evaluate, or only evaluate."""
    with claimed(Path(cfg.OUTPUT_DIR)) if comm.is_main_process() else nullcontext():
        return _run(cfg, args)


def _run(cfg: detectron2.config.CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    register()
    register_datasets(cfg.DATASETS.REGISTER)
    previous = last_checkpoint(Path(cfg.OUTPUT_DIR)) if args.resume else None
    cfg.SEED = comm.all_gather(run_seed(cfg.SEED, previous))[0]
    log_cfg = cfg.clone()
    log_cfg.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR, "inference")) if args.eval_only else cfg.OUTPUT_DIR
    default_setup(log_cfg, args)
    for package in ("detectron2_sam", "sam_common", "possam", "plug", "amsam"):  # into the same log
        setup_logger(log_cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name=package)
    logger.info(
        "engine: detectron2 %s; device: %s; processes: %d, %d threads each; torch %s",
        detectron2.__version__,
        cfg.MODEL.DEVICE,
        comm.get_world_size(),
        torch.get_num_threads(),
        torch.__version__,
    )
    if args.eval_only:
        model = Trainer.build_model(cfg)
        if is_amodal_detector(cfg):
            path = cfg.MODEL.WEIGHTS
            load_detector(model, path)
        else:
            path = checkpoint_to_evaluate(cfg, model, previous)
            _check_judged(cfg, model)
            Checkpointer(model, cfg.OUTPUT_DIR).resume_or_load(path, resume=False)
        return Trainer.test(cfg, model, checkpoint=path)
    trainer = Trainer(cfg, config_file=args.config_file)
    _check_judged(cfg, bare(trainer.model))
    trainer.resume_or_load(resume=args.resume)
    results = trainer.train()
    method = find_method(cfg.MODEL.META_ARCHITECTURE)
    if comm.is_main_process() and method is not None:
        method.export(own_cfg(cfg), [spec_of(name) for name in cfg.DATASETS.TRAIN], bare(trainer.model))
    return results


def _check_judged(cfg: detectron2.config.CfgNode, model: Any) -> None:
    """Finds what would stop the evaluation before anything else begins."""
    check_judged([spec_of(name) for name in cfg.DATASETS.TEST], model.outputs)
    for name in cfg.DATASETS.TEST:
        Trainer.build_evaluator(cfg, name)


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Runs Detectron2's engine; it hands no results back, they are in the log and in metrics.json.

    Raises:
        UserError: something that was given cannot be used.
    """
    cfg = setup(args)
    arguments = (args.num_gpus, args.num_machines, args.machine_rank, args.dist_url)
    if args.num_gpus * args.num_machines == 1:
        launch(run, *arguments, args=(cfg, args))
        return {}
    try:
        launch(_guarded, *arguments, args=(cfg, args))
    except torch.multiprocessing.ProcessExitedException as error:
        raise UserError(f"a process of the training ended early ({error}); its reason is above") from error
    return {}


def _guarded(cfg: detectron2.config.CfgNode, args: argparse.Namespace) -> None:
    """`run` in a process of its own: a user's mistake is one line there too, not a traceback."""
    try:
        run(cfg, args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
