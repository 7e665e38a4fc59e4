"""What trains, what decays, and the learning rate at each iteration."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import nn

from sam_common.engine.optimizer import (
    build_adamw,
    cosine_factor,
    lr_factor,
    multistep_factor,
    parameter_groups,
    trainable_parameters,
)


class Zoo(nn.Module):
    """One module of every kind; names are chosen to mislead a rule that looks at names."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_of_nothing = nn.Linear(2, 3)
        self.embedding_like = nn.Conv2d(3, 3, 1)
        self.up = nn.ConvTranspose2d(3, 3, 2)
        self.attention = nn.MultiheadAttention(4, 2)
        self.weights = nn.LayerNorm(3)
        self.groups = nn.GroupNorm(1, 3)
        self.channels = LayerNorm2d(3)
        self.linear = nn.Embedding(5, 2)
        self.level = nn.Parameter(torch.zeros(3, 4))
        self.temperature = nn.Parameter(torch.zeros(()))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def kinds(model: nn.Module) -> dict[str, set[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.05, weight_decay_norm=0.01, weight_decay_embed=0.0)
    return {group["kind"]: {names[p] for p in group["params"]} for group in groups}


def test_groups_follow_the_type_of_the_holder_not_the_name() -> None:
    """Exact sets, named by hand: norms and embeddings apart from weights, whatever they are called."""
    assert kinds(Zoo()) == {
        "weight": {
            *("norm_of_nothing.weight", "norm_of_nothing.bias", "embedding_like.weight", "embedding_like.bias"),
            *("up.weight", "up.bias", "attention.in_proj_weight", "attention.in_proj_bias"),
            *("attention.out_proj.weight", "attention.out_proj.bias"),
        },
        "norm": {f"{module}.{p}" for module in ("weights", "groups", "channels") for p in ("weight", "bias")},
        "embedding": {"linear.weight", "level", "temperature"},
    }


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    """The groups partition what trains; frozen parameters are in none; a shared parameter is counted once."""
    model = Zoo()
    model.shared = model.norm_of_nothing
    groups = parameter_groups(model, weight_decay=0.05, weight_decay_norm=0.0, weight_decay_embed=0.0)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in trainable_parameters(model).values())
    assert not any(name.startswith("frozen") for name in trainable_parameters(model))


def test_adamw_decays_only_what_its_group_says() -> None:
    """With zero gradients AdamW multiplies by 1 − lr·decay: 1 − 0.1·0.5 for the weight, 1 for the norm."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.LayerNorm(2))
    before = [p.detach().clone() for p in model.parameters()]
    groups = parameter_groups(model, weight_decay=0.5, weight_decay_norm=0.0, weight_decay_embed=0.0)
    optimizer = build_adamw(groups, lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = list(model.parameters())
    torch.testing.assert_close(after[0], before[0] * 0.95)
    assert torch.equal(after[1], before[1]) and torch.equal(after[2], before[2])


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, 1.0), (9, 1.0), (10, 0.1), (19, 0.1), (20, 0.01), (1000, 0.01)]
)
def test_multistep(iteration: int, expected: float) -> None:
    """The step counts from its own iteration on; the order in which steps are given does not matter."""
    assert multistep_factor(iteration, steps=(20, 10), gamma=0.1) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, 1.0), (25, 0.5 + math.sqrt(0.5) / 2), (50, 0.5), (100, 0.0), (101, 0.0)]
)
def test_cosine(iteration: int, expected: float) -> None:
    """cos(0), cos(π/4), cos(π/2), cos(π), and no rebound after the end."""
    assert cosine_factor(iteration, max_iter=100) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("iteration", "expected"), [(0, 0.001), (5, 0.5005), (9, 0.9001), (10, 1.0), (40, 0.1)])
def test_warm_up_is_linear_from_the_factor_to_the_schedule(iteration: int, expected: float) -> None:
    """0.001 + 0.999·i/10 for i < 10, the schedule afterwards."""
    schedule = partial(multistep_factor, steps=(40,), gamma=0.1)
    assert lr_factor(iteration, schedule=schedule, warmup_iters=10, warmup_factor=0.001) == pytest.approx(expected)


def test_warm_up_ends_on_the_cosine_without_a_jump() -> None:
    """The last warm-up value and the cosine meet: the ramp aims at the schedule's value at its end, not at 1."""
    schedule = partial(cosine_factor, max_iter=40)
    values = [lr_factor(i, schedule=schedule, warmup_iters=20, warmup_factor=0.0) for i in (10, 20)]
    assert values == pytest.approx([0.25, 0.5])
