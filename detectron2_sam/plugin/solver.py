"""Our optimizer and schedules in the place of Detectron2's, which knows SGD and two ways of clipping only."""

from __future__ import annotations

import functools
import sys
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build as stock
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from detectron2_sam.plugin.clipping import clip_before_steps
from detectron2_sam.plugin.datasets import spec_of
from detectron2_sam.plugin.modeling import TrainedPart
from sam_common.engine import build
from sam_common.engine.build import build_lr_factor, build_plan, check_training
from sam_common.errors import UserError
from sam_common.method import backward_of, find_method


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.AdamW:
    """AdamW that clips the gradient of the whole model before each step, and takes no step that is not finite.

    Raises:
        UserError: the model has nothing to train or cannot be trained on `DATASETS.TRAIN`, or a key is wrong.
    """
    if isinstance(model, TrainedPart):
        check_training(cfg, model, [spec_of(name) for name in cfg.DATASETS.TRAIN])
    optimizer, plan = build.build_optimizer(cfg, model), build_plan(cfg)
    clip_before_steps(optimizer, plan.clip_norm, plan.norm_type)
    return optimizer


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LambdaLR:
    """The schedule that `SOLVER.LR_SCHEDULER_NAME` names, warm-up included. Raises UserError where it is unknown."""
    return LambdaLR(optimizer, build_lr_factor(cfg))


@functools.cache
def register_solver() -> None:
    """Lets Detectron2's `build_optimizer` and `build_lr_scheduler` build ours for our models; all others get its own.

    Modules that imported these functions by name, such as a training script, are served too.
    """
    theirs = stock.build_optimizer, stock.build_lr_scheduler
    for ours, original in zip((_stock_optimizer, build_lr_scheduler), theirs, strict=True):
        name, dispatching = original.__name__, _for_our_models(ours, original)
        for module in list(sys.modules.values()):
            if getattr(module, "__dict__", {}).get(name) is original:
                setattr(module, name, dispatching)


def _for_our_models(ours: Any, theirs: Any) -> Any:
    @functools.wraps(theirs)
    def build_either(cfg: CfgNode, subject: Any) -> Any:
        return theirs(cfg, subject) if find_method(cfg.MODEL.META_ARCHITECTURE) is None else ours(cfg, subject)

    return build_either


def _stock_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.AdamW:
    """`build_optimizer` for trainers of Detectron2's own, which do less than ours.

    Raises:
        UserError: they would train otherwise than the configuration says.
    """
    name, solver = cfg.MODEL.META_ARCHITECTURE, cfg.SOLVER
    if backward_of(cfg) is not None:
        raise UserError(
            f"{name} learns at two levels, which this trainer does not know; use detectron2_sam.Trainer(cfg), or "
            "detectron2-sam train --engine detectron2"
        )
    if solver.AMP.ENABLED and torch.device(cfg.MODEL.DEVICE).type == "cpu":
        raise UserError("Detectron2 has mixed precision on a GPU only; set SOLVER.AMP.ENABLED False")
    if solver.ACCUMULATE != 1:
        raise UserError(
            f"SOLVER.ACCUMULATE is {solver.ACCUMULATE}: Detectron2's trainers do not accumulate gradients; set it to 1"
        )
    if solver.CLIP_GRADIENTS.ENABLED and solver.CLIP_GRADIENTS.CLIP_TYPE != "full_model":  # parameter by parameter
        return stock.maybe_add_gradient_clipping(cfg, build.build_optimizer(cfg, model))
    return build_optimizer(cfg, model)
