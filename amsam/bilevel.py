"""Bi-level optimisation: weights W learn from one half of the shots, the prompt A from the other.

AM-SAM, Section 3.3, after BLO-SAM:

    min_A L(W*(A), A; D2)    with    W*(A) = argmin_W L(W, A; D1)

One iteration with batches B1 of D1 and B2 of D2: W takes a step on L(W, A; B1), then A takes one along either of

    first_order    g = ∇_A L(W, A; B2)
    unrolled       W' = W - ξ ∇_W L(W, A; B1),    v = ∇_{W'} L(W', A; B2)
                   g = ∇_A L(W', A; B2) - ξ [∇_A L(W⁺, A; B1) - ∇_A L(W⁻, A; B1)] / (2ε),    W± = W ± ε v

with W before its own step, ξ the current rate of W, and ε = 0.01 / ‖v‖. The bracket is a finite difference for the
product of a second derivative with v (Liu et al., DARTS, arXiv 1806.09055).

Parameters are dictionaries by name; `loss(lower, upper, batch)` is a scalar of them. Nothing is changed in place. Both
functions give g and the value of L(·, A; B2) that they met on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")
Parameters = Mapping[str, Tensor]
Loss = Callable[[Parameters, Parameters, Batch], Tensor]

RADIUS = 0.01
"""ε ‖v‖: how far W± lie from W."""


def gradient(loss: Tensor, parameters: Parameters) -> dict[str, Tensor]:
    """∂ loss / ∂ parameter for each that it depends on, zeros for the others."""
    values = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(parameters, values, strict=True))


def first_order(
    loss: Loss[Batch], lower: Parameters, upper: Parameters, batch: Batch
) -> tuple[dict[str, Tensor], Tensor]:
    """∇_A L(W, A; B2), as if W did not depend on A; and L(W, A; B2)."""
    upper = _leaves(upper)
    value = loss({name: w.detach() for name, w in lower.items()}, upper, batch)
    return gradient(value, upper), value.detach()


def unrolled(
    loss: Loss[Batch], lower: Parameters, upper: Parameters, batch1: Batch, batch2: Batch, xi: float
) -> tuple[dict[str, Tensor], Tensor]:
    """The gradient of A through one step of plain gradient descent of W; and L(W', A; B2).

    Args:
        lower: W before its step.
        xi: ξ.
    """
    lower, upper = _leaves(lower), _leaves(upper)
    step = gradient(loss(lower, upper, batch1), lower)
    ahead = _leaves({name: w - xi * step[name] for name, w in lower.items()})
    value = loss(ahead, upper, batch2)
    both = gradient(value, {**ahead, **upper})
    v = {name: both[name] for name in ahead}
    norm = torch.stack([value.norm() for value in v.values()]).norm()
    if norm == 0:  # nothing flows back through the step
        return {name: both[name] for name in upper}, value.detach()
    epsilon = RADIUS / norm

    def at(sign: int) -> dict[str, Tensor]:
        moved = {name: w.detach() + sign * epsilon * v[name] for name, w in lower.items()}
        return gradient(loss(moved, upper, batch1), upper)

    above, below = at(1), at(-1)
    g = {name: both[name] - xi * (above[name] - below[name]) / (2 * epsilon) for name in upper}
    return g, value.detach()


def _leaves(parameters: Parameters) -> dict[str, Tensor]:
    return {name: value.detach().requires_grad_() for name, value in parameters.items()}
