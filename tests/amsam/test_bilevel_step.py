"""Both levels on the model itself: who moves when, and by what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amsam.amsam import AMSAM
from amsam.bilevel import first_order, unrolled
from amsam.bilevel_step import LOWER, UPPER, BilevelStep, JointStep
from amsam.config import build_amsam
from sam_common.engine.optimizer import build_adamw, parameter_groups
from tests.amsam.test_amsam import config, entry

RATE, UPPER_RATE = 5e-3, 1e-3


def make(gradient: str = "first_order") -> tuple[AMSAM, torch.optim.AdamW, BilevelStep]:
    torch.manual_seed(0)
    model = build_amsam(config()).train()
    groups = parameter_groups(model, weight_decay=0.1, weight_decay_norm=0.1, weight_decay_embed=0.1)
    optimizer = build_adamw(groups, lr=RATE)
    return model, optimizer, BilevelStep(model, optimizer, upper_lr=UPPER_RATE, gradient=gradient)


def batch() -> list[dict[str, Any]]:
    return [entry(1) | {"level": LOWER}, entry(2) | {"level": UPPER}]


def values(parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in parameters.items()}


def test_weights_step_on_the_first_half_and_the_prompt_waits() -> None:
    """W moves, A does not but has the only gradient: that of the second half at the new W."""
    model, optimizer, step = make()
    lower, upper = model.levels()
    before = values(lower), values(upper)
    losses = step(batch())
    assert losses.keys() == {"loss_cross_entropy", "loss_dice", "loss_upper"}
    moved = [name for name, p in lower.items() if not torch.equal(p, before[0][name])]
    assert len(moved) == len([n for n in lower if "iou_prediction_head" not in n])
    (name,) = upper
    assert torch.equal(upper[name], before[1][name])
    assert [n for n, p in model.named_parameters() if p.grad is not None] == [name]
    gradients, value = first_order(model.loss, lower, upper, batch()[1:])
    torch.testing.assert_close(upper[name].grad, gradients[name])
    torch.testing.assert_close(losses["loss_upper"], value)
    after = values(lower)
    optimizer.step()
    assert not torch.equal(upper[name], before[1][name])
    assert all(torch.equal(p, after[n]) for n, p in lower.items())


def test_unrolling_starts_before_the_step() -> None:
    """The gradient of A is that of the unrolled objective at the W that the iteration began with, ξ the rate of W."""
    model, _, step = make("unrolled")
    lower, upper = model.levels()
    (name,) = upper
    first, second = batch()[:1], batch()[1:]
    expected = unrolled(model.loss, values(lower), values(upper), first, second, RATE)[0][name]
    step(batch())
    torch.testing.assert_close(upper[name].grad, expected, rtol=1e-4, atol=1e-7)


def test_the_prompt_has_a_rate_of_its_own() -> None:
    """Once in all groups, alone in its own, with its own base rate; the others keep theirs."""
    model, optimizer, _ = make()
    (prompt,) = model.levels()[1].values()
    holders = [group for group in optimizer.param_groups if any(p is prompt for p in group["params"])]
    assert len(holders) == 1 and len(holders[0]["params"]) == 1 and holders[0]["base_lr"] == UPPER_RATE
    assert all(group["base_lr"] == RATE for group in optimizer.param_groups if group is not holders[0])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        [p for p in model.parameters() if p.requires_grad]
    )


@pytest.mark.parametrize("gradient", ["first_order", "unrolled"])
def test_a_loss_that_is_not_finite_moves_nothing(gradient: str) -> None:
    """W stays, and the engine is told by the losses."""
    model, _, step = make(gradient)
    with torch.no_grad():
        model.decoder.iou_token.weight[0, 0] = torch.nan
    lower, _ = model.levels()
    before = values(lower)
    losses = step(batch())
    assert not any(loss.isfinite() for loss in losses.values())
    assert all(torch.equal(p.nan_to_num(), before[name].nan_to_num()) for name, p in lower.items())


def test_one_level_is_the_plain_gradient_of_both_halves() -> None:
    """`JointStep` moves nothing and leaves the gradient of the mean loss, that of A among them."""
    model, _, _ = make()
    lower, upper = model.levels()
    before = values({**lower, **upper})
    losses = JointStep(model)(batch())
    assert losses.keys() == {"loss_cross_entropy", "loss_dice"}
    assert all(torch.equal(p, before[name]) for name, p in {**lower, **upper}.items())
    (name,) = upper
    (expected,) = torch.autograd.grad(model.loss(lower, upper, batch()), list(upper.values()))
    torch.testing.assert_close(upper[name].grad, expected)


def test_a_few_iterations_learn_the_square() -> None:
    """On two images of a bright square the loss of both halves falls."""
    _, optimizer, step = make()
    history = []
    for _ in range(12):
        history.append(float(sum(step(batch()).values())))
        optimizer.step()
    assert history[-1] < 0.7 * history[0]
