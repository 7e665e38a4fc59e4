"""The point loss and its choice of points."""

from __future__ import annotations

import torch

from plug.point_loss import choose_points, point_loss
from plug.uncertainty import uncertainty


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_the_192_most_uncertain_of_1024_are_taken_and_64_others() -> None:
    """By the definition: of the drawn pixels sorted by uncertainty the first 192; no point comes twice."""
    maps = torch.rand(3, 1, 64, 48)
    points = choose_points(maps, generators(3))
    assert points.shape == (3, 256)
    for index, generator in enumerate(generators(3)):
        drawn = torch.randperm(64 * 48, generator=generator)[:1024]
        values = maps[index].flatten()
        top = set(drawn[values[drawn].argsort(descending=True)[:192]].tolist())
        assert set(points[index, :192].tolist()) == top
        rest = set(points[index, 192:].tolist())
        assert len(rest) == 64 and rest <= set(drawn.tolist()) - top


def test_with_no_uncertainty_anywhere_the_choice_is_still_valid() -> None:
    """A constant map: 256 different pixels."""
    points = choose_points(torch.zeros(1, 1, 32, 32), generators(1))
    assert len(set(points[0].tolist())) == 256 and points.max() < 1024


def test_the_choice_depends_on_the_generators_alone() -> None:
    """Equal seeds choose equal points, whatever the global state; a mask's points do not depend on the batch."""
    maps = torch.rand(2, 1, 40, 40)
    first = choose_points(maps, generators(2))
    torch.rand(5)
    assert torch.equal(choose_points(maps, generators(2)), first)
    assert torch.equal(choose_points(maps[:1], generators(1)), first[:1])


def test_the_loss_is_its_equation_and_reaches_the_logits_through_u() -> None:
    """By hand at the chosen points; with the cross-entropy's weight taken away, u alone still gives a gradient."""
    logits = torch.randn(2, 1, 40, 40, requires_grad=True)
    truth = (torch.rand(2, 1, 40, 40) > 0.5).float()
    doubt = uncertainty(logits)
    points = choose_points(doubt, generators(2))
    at = [x.flatten(1).gather(1, points) for x in (logits, truth, doubt)]
    bce = -(at[1] * at[0].sigmoid().log() + (1 - at[1]) * (1 - at[0].sigmoid()).log())
    torch.testing.assert_close(point_loss(logits, truth, doubt, points), (0.1 * bce + 0.1 * at[2]).mean())
    (gradient,) = torch.autograd.grad(doubt.flatten(1).gather(1, points).mean(), logits)
    assert gradient.abs().sum() > 0
