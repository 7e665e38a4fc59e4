"""Trains and evaluates a model, with Detectron2's flags.

    python tools/train_net.py --config-file configs/possam_B.yaml --num-gpus 8
    torchrun --nproc_per_node 8 tools/train_net.py --config-file configs/possam_B.yaml --engine fabric
    python tools/train_net.py --config-file configs/possam_B.yaml --eval-only MODEL.WEIGHTS output/model_final.pth

Exit status: 0 done, 2 a mistake in what was given (one line on stderr), 128 + N stopped by signal N after a checkpoint.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from detectron2_sam.commands.cli import ToolParser
from detectron2_sam.methods import full_cfg, methods
from sam_common.config import CfgNode
from sam_common.engine.build import (
    build_trainer,
    check_levels,
    check_output_dir,
    register_datasets,
    run_seed,
)
from sam_common.engine.build_evaluation import evaluate_all
from sam_common.engine.checkpoint import frozen_sha256, last_checkpoint, load_trained, read_checkpoint
from sam_common.engine.launch import (
    Interrupted,
    choose_device,
    choose_precision,
    describe,
    is_first_process,
    launch,
    processes_here,
    stop_on_signals,
)
from sam_common.engine.logging import MetricsWriter, log_to
from sam_common.errors import UserError
from sam_common.evaluation.evaluator import Results
from sam_common.io.files import write_text
from sam_common.method import build_model, method_of

logger = logging.getLogger("detectron2_sam.commands.train")


def choose_engine(argv: Sequence[str]) -> tuple[str, list[str]]:
    """`detectron2` or `fabric`, and the arguments without --engine. `auto` is Detectron2's where it imports."""
    parser = ToolParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--engine", default="auto")
    args, others = parser.parse_known_args(argv)
    if args.engine not in ("auto", "detectron2", "fabric"):
        raise UserError(f"--engine {args.engine} is unknown; choose auto, fabric or detectron2")
    if args.engine == "fabric":
        return "fabric", others
    try:
        import detectron2_sam.plugin  # noqa: F401
    except Exception as error:  # built for other versions, it fails in many ways; `auto` must not
        if args.engine == "detectron2":
            raise UserError(f"Detectron2 cannot be used: {' '.join(str(error).split())}") from error
        if importlib.util.find_spec("detectron2"):
            logger.warning("Detectron2 is here but cannot be imported (%s): using --engine fabric", error)
        return "fabric", others
    return "detectron2", others


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; raises UserError where it makes no sense."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="a YAML file, or the name of a shipped one")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes per machine; CPU ones with MODEL.DEVICE cpu")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS (with --resume: the last one)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of OUTPUT_DIR, if any")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0)
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0")
    parser.add_argument("--engine", help="auto (detectron2 where it is installed) | fabric | detectron2")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override the configuration")
    return parser.parse_args(argv)


def setup(args: argparse.Namespace) -> CfgNode:
    """The configuration, checked as far as the command line and the disk allow before any process starts."""
    cfg = full_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    methods()
    register_datasets(cfg)
    args.num_gpus = processes_here(args.num_gpus, args.num_machines)
    device = choose_device(cfg.MODEL.DEVICE, args.num_gpus)
    _precision(cfg, device)
    if not args.eval_only:
        check_levels(cfg, device=device, processes=args.num_gpus * args.num_machines)
    if is_first_process(args.machine_rank):
        check_output_dir(cfg, resume=args.resume, eval_only=args.eval_only)
    return cfg


def _precision(cfg: CfgNode, device: torch.device) -> torch.dtype:
    return choose_precision(device, cfg.SOLVER.AMP.PRECISION if cfg.SOLVER.AMP.ENABLED else "float32")


def run(fabric: Fabric, cfg: CfgNode, args: argparse.Namespace) -> dict[str, Results]:
    """What every process does: train and evaluate, or only evaluate."""
    methods()
    register_datasets(cfg)
    directory = Path(cfg.OUTPUT_DIR) / ("inference" if args.eval_only else "")
    with log_to(directory, fabric.global_rank):
        logger.info(describe(fabric, method_of(cfg).kernels(fabric.device)))
        previous = last_checkpoint(Path(cfg.OUTPUT_DIR)) if args.resume else None
        cfg.SEED = fabric.broadcast(run_seed(cfg.SEED, previous))
        if fabric.is_global_zero:
            write_text(directory / "config.yaml", cfg.dump())
        torch.manual_seed(cfg.SEED)
        model = build_model(cfg)
        if args.eval_only:
            return _evaluate(fabric, cfg, model, str(previous or cfg.MODEL.WEIGHTS))
        if previous is None and cfg.MODEL.WEIGHTS:
            _load(model, cfg.MODEL.WEIGHTS)
        trainer = build_trainer(cfg, fabric, model, config_file=args.config_file)
        if previous is not None:
            trainer.resume(previous)
        if not fabric.is_global_zero:
            return trainer.train()
        start = trainer.progress.iteration + 1
        with MetricsWriter(
            directory, start_iteration=start, max_iter=cfg.SOLVER.MAX_ITER, device=fabric.device
        ) as writer:
            return trainer.train(writer)


def _load(model: torch.nn.Module, weights: str) -> int:
    content = read_checkpoint(weights)
    load_trained(model, content, weights, frozen=frozen_sha256(model))
    logger.info("loaded %s", weights)
    return content.get("iteration", -1)


def _evaluate(fabric: Fabric, cfg: CfgNode, model: torch.nn.Module, weights: str) -> dict[str, Results]:
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name a data set to evaluate")
    iteration = _load(model, weights) if weights else -1
    if not weights and any(parameter.requires_grad for parameter in model.parameters()):
        logger.warning("MODEL.WEIGHTS is empty: evaluating an untrained model")
    with stop_on_signals() as stop:
        results = evaluate_all(
            cfg, fabric, model.to(fabric.device), weights or "untrained", iteration, lambda: stop.signum > 0
        )
    if results is None:
        raise Interrupted("the evaluation was stopped; nothing was written", stop.signum)
    return results


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the tool; data set -> task -> metric -> value (nothing from Detectron2's launch, which returns nothing).

    Raises:
        UserError: something that was given cannot be used.
        Interrupted: a signal ended the run, after a checkpoint.
    """
    engine, argv = choose_engine(sys.argv[1:] if argv is None else argv)
    if engine == "detectron2":
        from detectron2_sam.plugin.launch import main as detectron2_main

        return detectron2_main(argv)
    args = parse(argv)
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
