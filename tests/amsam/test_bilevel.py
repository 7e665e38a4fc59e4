"""Bi-level gradients against exact double backward, in float64."""

from __future__ import annotations

import pytest
import torch

from amsam.bilevel import first_order, gradient, unrolled

Parameters = dict[str, torch.Tensor]


def loss(lower: Parameters, upper: Parameters, batch: torch.Tensor) -> torch.Tensor:
    """Smooth, and not quadratic: W and A meet in a product and in a tanh."""
    hidden = torch.tanh(batch @ lower["w"] + upper["a"])
    return (hidden @ lower["v"]).square().mean() + (lower["w"].sum(0) * upper["a"]).sin().mean()


@pytest.fixture
def problem() -> tuple[Parameters, Parameters, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {"w": draw(4, 3), "v": draw(3, 2)}, {"a": draw(3)}, draw(5, 4), draw(6, 4)


def exact(lower: Parameters, upper: Parameters, batch1: torch.Tensor, batch2: torch.Tensor, xi: float) -> torch.Tensor:
    """d/dA of L(W - ξ ∇_W L(W, A; B1), A; B2), by differentiating through the step."""
    lower = {name: value.clone().requires_grad_() for name, value in lower.items()}
    a = upper["a"].clone().requires_grad_()
    steps = torch.autograd.grad(loss(lower, {"a": a}, batch1), list(lower.values()), create_graph=True)
    ahead = {name: w - xi * step for (name, w), step in zip(lower.items(), steps, strict=True)}
    return torch.autograd.grad(loss(ahead, {"a": a}, batch2), a)[0]


@pytest.mark.parametrize("xi", [1e-3, 0.05, 0.3])
def test_the_unrolled_gradient_is_that_of_double_backward(problem: tuple, xi: float) -> None:
    """The finite difference agrees with the exact derivative to its own order, and is no first-order gradient."""
    lower, upper, batch1, batch2 = problem
    ours = unrolled(loss, lower, upper, batch1, batch2, xi)[0]["a"]
    torch.testing.assert_close(ours, exact(lower, upper, batch1, batch2, xi), rtol=1e-3, atol=1e-5)
    if xi > 0.01:
        naive = gradient_ahead(lower, upper, batch1, batch2, xi)
        assert (ours - naive).norm() > 10 * (ours - exact(lower, upper, batch1, batch2, xi)).norm()


def gradient_ahead(
    lower: Parameters, upper: Parameters, batch1: torch.Tensor, batch2: torch.Tensor, xi: float
) -> torch.Tensor:
    """∇_A L(W', A; B2) alone: what is left when the second-order term is dropped."""
    leaves = {name: value.clone().requires_grad_() for name, value in lower.items()}
    step = gradient(loss(leaves, upper, batch1), leaves)
    ahead = {name: w.detach() - xi * step[name] for name, w in leaves.items()}
    return first_order(loss, ahead, upper, batch2)[0]["a"]


def test_without_a_step_it_is_first_order(problem: tuple) -> None:
    """ξ = 0: W' = W and the bracket counts for nothing; both tell the loss of the second batch."""
    lower, upper, batch1, batch2 = problem
    ahead, plain = unrolled(loss, lower, upper, batch1, batch2, 0.0), first_order(loss, lower, upper, batch2)
    torch.testing.assert_close(ahead[0]["a"], plain[0]["a"])
    assert ahead[1] == plain[1] == loss(lower, upper, batch2)


def test_parameters_stay_as_they_are(problem: tuple) -> None:
    """Neither values nor gradients of what was given change."""
    lower, upper, batch1, batch2 = problem
    before = {name: value.clone() for name, value in {**lower, **upper}.items()}
    unrolled(loss, lower, upper, batch1, batch2, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in {**lower, **upper}.items())
    assert all(value.grad is None and not value.requires_grad for value in {**lower, **upper}.values())


def test_a_loss_that_does_not_know_the_weights() -> None:
    """v = 0: no division by its norm; the gradient is that of the second batch."""
    lower, upper = {"w": torch.ones(2)}, {"a": torch.tensor([3.0])}
    found, _ = unrolled(lambda w, a, batch: (a["a"] * batch).sum(), lower, upper, torch.ones(1), 2 * torch.ones(1), 0.1)
    assert found["a"].tolist() == [2.0]
