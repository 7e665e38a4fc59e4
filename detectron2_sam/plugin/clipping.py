"""Clipping inside the optimizer's step, which any of Detectron2's trainers takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def clip_before_steps(optimizer: torch.optim.Optimizer, max_norm: float, norm_type: float = 2.0) -> None:
    """Lets every step first clip the gradient of all that the optimizer trains to a norm of at most `max_norm`.

    A step whose gradient is not finite raises `FloatingPointError` and changes nothing, as Detectron2 ends a run whose
    loss is not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def clip(*_: Any) -> None:  # here, because mixed precision has unscaled the gradients by now
        norm = nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
        if not norm.isfinite():  # the weights are still good
            raise FloatingPointError("the gradient is not finite; go on from the last checkpoint with --resume")

    optimizer.register_step_pre_hook(clip)
