"""From a configuration to the parts of a run. With `build_data.py` and `build_evaluation.py`, what reads a cfg in the
engine."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from sam_common.config import CfgNode, one_of
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine.checkpoint import read_state
from sam_common.engine.launch import choose_precision
from sam_common.engine.optimizer import (
    build_adamw,
    cosine_factor,
    lr_factor,
    multistep_factor,
    parameter_groups,
    poly_factor,
    trainable_parameters,
)
from sam_common.engine.trainer import Plan
from sam_common.errors import UserError
from sam_common.method import Backward, backward_of, method_of

logger = logging.getLogger(__name__)


def check_output_dir(cfg: CfgNode, *, resume: bool, eval_only: bool) -> None:
    """Raises UserError where a new training would write into a folder that holds something.

    A run that ended before its first iteration left nothing to lose: the corrected command may go there. Hidden files,
    such as the lock, do not count either.
    """
    output = Path(cfg.OUTPUT_DIR)
    if resume or eval_only or not output.is_dir():
        return
    metrics = output / "metrics.json"
    began = metrics.is_file() and metrics.stat().st_size > 0
    first = [".*", "config.yaml", "log.txt*"] + (["metrics.json", "events.out.tfevents*"] if not began else [])
    if {*output.iterdir()} - {path for pattern in first for path in output.glob(pattern)}:
        raise UserError(f"OUTPUT_DIR {output} is not empty; go on with --resume, or choose another OUTPUT_DIR")


def run_seed(seed: int, previous: Path | None) -> int:
    """`SEED`; where it is negative, the seed of the checkpoint that the run goes on from, or else a random one."""
    if seed < 0:
        seed = read_state(previous)["seed"] if previous is not None else secrets.randbits(31)
        logger.info("SEED %d", seed)
    return seed


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.AdamW:
    """AdamW over what trains, decay by kind of parameter. Raises UserError where a rate is negative."""
    solver = cfg.SOLVER
    one_of("SOLVER.OPTIMIZER", solver.OPTIMIZER, ("ADAMW",))
    for key in ("BASE_LR", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "WEIGHT_DECAY_EMBED"):
        if solver[key] < 0:
            raise UserError(f"SOLVER.{key} is {solver[key]:g}; give 0 or more")
    groups = parameter_groups(
        model,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_embed=solver.WEIGHT_DECAY_EMBED,
    )
    return build_adamw(groups, lr=solver.BASE_LR)


def build_lr_factor(cfg: CfgNode) -> Callable[[int], float]:
    """Iteration -> learning rate over `SOLVER.BASE_LR`.

    A warm-up is at most a tenth of the training; a log line says so where the configuration asks for a longer one, at
    whose end the schedule of a short training is near zero.
    """
    solver = cfg.SOLVER
    warmup = min(solver.WARMUP_ITERS, solver.MAX_ITER // 10)
    if warmup < solver.WARMUP_ITERS:
        logger.info("warm-up: %d iterations instead of %d, a tenth of MAX_ITER", warmup, solver.WARMUP_ITERS)
    schedules: dict[str, Callable[[int], float]] = {
        "WarmupMultiStepLR": partial(multistep_factor, steps=solver.STEPS, gamma=solver.GAMMA),
        "WarmupCosineLR": partial(cosine_factor, max_iter=solver.MAX_ITER),
        "WarmupPolyLR": partial(poly_factor, max_iter=solver.MAX_ITER, power=solver.POLY_LR_POWER),
    }
    one_of("SOLVER.LR_SCHEDULER_NAME", solver.LR_SCHEDULER_NAME, schedules)
    return partial(
        lr_factor,
        schedule=schedules[solver.LR_SCHEDULER_NAME],
        warmup_iters=warmup,
        warmup_factor=solver.WARMUP_FACTOR,
    )


def build_plan(cfg: CfgNode) -> Plan:
    """How long to train and what to do on the way."""
    solver, clip = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    one_of("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip.CLIP_TYPE, ("full_model",))
    return Plan(
        max_iter=solver.MAX_ITER,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        eval_period=cfg.TEST.EVAL_PERIOD,
        clip_norm=clip.CLIP_VALUE if clip.ENABLED else math.inf,
        norm_type=clip.NORM_TYPE,
        accumulate=solver.ACCUMULATE,
        seed=cfg.SEED,
    )


def build_backward(
    cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer, *, device: torch.device, world_size: int
) -> Backward | None:
    """What takes the place of the backward pass, for a method that learns at several levels; else None.

    Raises:
        UserError: as `check_levels`.
    """
    check_levels(cfg, device=device, processes=world_size)
    make = backward_of(cfg)
    return None if make is None else make(cfg, model, optimizer)


def check_levels(cfg: CfgNode, *, device: torch.device, processes: int) -> None:
    """Raises UserError where a method that learns at several levels is asked for what an engine does for one only."""
    name, solver = cfg.MODEL.META_ARCHITECTURE, cfg.SOLVER
    if backward_of(cfg) is None:
        return
    if processes > 1 or solver.ACCUMULATE > 1:
        raise UserError(
            f"{name} trains in one process and one part: one device is enough for a few images; give --num-gpus 1 and "
            "SOLVER.ACCUMULATE 1"
        )
    if solver.CLIP_GRADIENTS.ENABLED:
        raise UserError(f"{name} steps each level by itself and clips none; set SOLVER.CLIP_GRADIENTS.ENABLED False")
    if solver.AMP.ENABLED and choose_precision(device, solver.AMP.PRECISION) != torch.float32:
        raise UserError(f"{name} trains in float32; set SOLVER.AMP.ENABLED False")


def check_training(cfg: CfgNode, model: nn.Module, specs: Iterable[DatasetSpec]) -> None:
    """Raises UserError where the model has nothing to train, or is not for the kind of truth it would be trained on."""
    if not trainable_parameters(model):
        raise UserError(f"{cfg.MODEL.META_ARCHITECTURE} has nothing to train; evaluate it with --eval-only")
    truths = method_of(cfg).truths
    for spec in specs:
        if spec.truth not in truths:
            raise UserError(
                f"DATASETS.TRAIN: {spec.name} has {spec.truth} truth, which {cfg.MODEL.META_ARCHITECTURE} cannot "
                "be trained on; name another data set"
            )
