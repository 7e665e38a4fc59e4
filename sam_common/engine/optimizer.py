"""AdamW's parameter groups and the learning-rate schedules, with Detectron2's meaning of every `SOLVER` key."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn

NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._NormBase,  # batch and instance norm of every dimension
    LayerNorm2d,
)
"""Module types whose parameters get `WEIGHT_DECAY_NORM`."""

WEIGHTED = (nn.Linear, nn.Bilinear, nn.MultiheadAttention, nn.modules.conv._ConvNd)
"""Module types whose own parameters, biases included, get `WEIGHT_DECAY`: those that multiply by a matrix."""


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What trains: each parameter that requires a gradient, once, by its first name. The engine asks nobody else."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def parameter_groups(
    model: nn.Module, *, weight_decay: float, weight_decay_norm: float, weight_decay_embed: float
) -> list[dict]:
    """Splits what trains into AdamW's groups by the type of the module that holds the parameter itself.

    Held by one of `NORMS`: a norm. Held by one of `WEIGHTED`: a weight. Everything else is an embedding: that of
    `nn.Embedding`, and what a module holds directly (level, query, position and void embeddings, temperatures).
    Names are never looked at. A parameter that two modules share goes with the first one.

    Returns:
        One group per kind that occurs: `params`, `weight_decay`, `kind` ("weight" | "norm" | "embedding"), in this
        order, parameters in the model's order.
    """
    decays = {"weight": weight_decay, "norm": weight_decay_norm, "embedding": weight_decay_embed}
    members: dict[str, list[nn.Parameter]] = {kind: [] for kind in decays}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                members[_kind(module)].append(parameter)
    return [
        {"params": members[kind], "weight_decay": decay, "kind": kind}
        for kind, decay in decays.items()
        if members[kind]
    ]


def _kind(holder: nn.Module) -> str:
    if isinstance(holder, NORMS):
        return "norm"
    return "weight" if isinstance(holder, WEIGHTED) else "embedding"


def build_adamw(groups: list[dict], *, lr: float) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; the trainer sets each group's `lr` to `base_lr` × schedule before every step."""
    for group in groups:
        group["base_lr"] = lr
    return torch.optim.AdamW(groups, lr=lr)


def multistep_factor(iteration: int, *, steps: Sequence[int], gamma: float) -> float:
    """`gamma` to the number of `steps` reached; at `iteration == step` the step is reached."""
    return gamma ** bisect.bisect_right(sorted(steps), iteration)


def cosine_factor(iteration: int, *, max_iter: int) -> float:
    """Half a cosine from 1 at iteration 0 to 0 at `max_iter`."""
    return 0.5 * (1.0 + math.cos(math.pi * min(iteration / max_iter, 1.0)))


def poly_factor(iteration: int, *, max_iter: int, power: float) -> float:
    """(1 - iteration / max_iter) to the `power`: from 1 at iteration 0 to 0 at `max_iter`."""
    return (1.0 - min(iteration / max_iter, 1.0)) ** power


def lr_factor(
    iteration: int, *, schedule: Callable[[int], float], warmup_iters: int = 0, warmup_factor: float = 0.0
) -> float:
    """Learning rate at `iteration` (from 0) over the base learning rate.

    During the first `warmup_iters` iterations it rises linearly from `warmup_factor · schedule(0)` to the value that
    the schedule has when the warm-up ends, so there is no jump; this is Detectron2's `WarmupParamScheduler`.
    """
    if iteration >= warmup_iters:
        return schedule(iteration)
    start, end = warmup_factor * schedule(0), schedule(warmup_iters)
    return start + (end - start) * iteration / warmup_iters
