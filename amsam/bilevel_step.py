"""One iteration of the bi-level optimisation on the model itself: the weights W step, the prompt A gets its gradient.

`JointStep` is what it is compared with: one level, on which W and A learn together from all shots.

`bilevel.py` has the equations. An engine calls `BilevelStep` in place of a backward pass and steps the optimizer after
it; so clipping, schedules and checkpoints are the engine's, whichever one runs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from amsam.amsam import AMSAM
from amsam.bilevel import first_order, unrolled
from amsam.structures import FewShotInput
from sam_common.contracts import Losses

LOWER, UPPER = 1, 2
"""`level` of an entry of a batch: which half of the shots it is from."""


class BilevelStep:
    """Called with a batch of both levels, it steps W and leaves A's gradient as the only one.

    Args:
        model: bare, on its device.
        optimizer: over all that trains, made anew; A moves to a group of its own with its own rate.
        upper_lr: base rate of A.
        gradient: "first_order" | "unrolled".
    """

    def __init__(self, model: AMSAM, optimizer: torch.optim.Optimizer, *, upper_lr: float, gradient: str) -> None:
        self.model = model
        self.optimizer = optimizer
        self.unrolled = gradient == "unrolled"
        self.lower, self.upper = model.levels()
        (prompt,) = self.upper.values()
        home = next(group for group in optimizer.param_groups if any(p is prompt for p in group["params"]))
        home["params"] = [p for p in home["params"] if p is not prompt]
        own = {key: value for key, value in home.items() if key != "params"}
        optimizer.add_param_group(own | {"params": [prompt], "lr": upper_lr, "base_lr": upper_lr, "kind": "upper"})

    def __call__(self, batch: list[FewShotInput]) -> Losses:
        """The losses at the lower level, and of the upper one the sum that A descends, `loss_upper`.

        Where a loss of W or its gradient is not finite W takes no step; the engine sees it in what is returned.
        """
        first = [entry for entry in batch if entry["level"] == LOWER]
        second = [entry for entry in batch if entry["level"] == UPPER]
        parts = self.model.loss, self.lower, self.upper
        if self.unrolled:  # from W before its step
            rate = max(group["lr"] for group in self.optimizer.param_groups if group["kind"] != "upper")
            gradients, loss_upper = unrolled(*parts, first, second, rate)
            losses = self._step_weights(first)
        else:
            losses = self._step_weights(first)
            gradients, loss_upper = first_order(*parts, second)
        self.optimizer.zero_grad()
        for name, prompt in self.upper.items():
            prompt.grad = gradients[name]
        return {**losses, "loss_upper": loss_upper}

    def _step_weights(self, batch: list[FewShotInput]) -> Losses:
        losses = _backward(self.model, batch)
        for prompt in self.upper.values():
            prompt.grad = None
        gradients = [p.grad for p in self.lower.values() if p.grad is not None]
        if math.isfinite(float(torch.stack([gradient.norm() for gradient in gradients]).norm())):
            self.optimizer.step()  # parameters without a gradient stay
        else:
            losses = {name: loss * torch.nan for name, loss in losses.items()}
        return losses


class JointStep:
    """Called with a batch of both levels, it leaves the gradients of their mean loss, those of A among them."""

    def __init__(self, model: AMSAM) -> None:
        self.model = model

    def __call__(self, batch: list[FewShotInput]) -> Losses:
        """The losses; a gradient that is not finite is the engine's to find."""
        return _backward(self.model, batch)


def _backward(model: AMSAM, batch: list[FewShotInput]) -> Losses:
    """The losses; their gradients are the only ones."""
    model.zero_grad()
    losses: dict[str, Tensor] = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    return {name: loss.detach() for name, loss in losses.items()}
