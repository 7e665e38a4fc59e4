"""Dice and point sampling: values by hand, and equality with pixels."""

from __future__ import annotations

import math

import pytest
import torch

from possam.point_losses import dice_loss, pairwise_dice_loss, point_sample, uncertain_points


def test_dice_by_hand():
    """p = (1/2, 1/2), t = (1, 0): 1 - (2 · 1/2 + 1) / (1 + 1 + 1) = 1/3."""
    loss = dice_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor([1 / 3]))


@pytest.mark.parametrize(
    ("logits", "targets", "expected"),
    [
        ([50.0, -50.0], [1.0, 0.0], 0.0),  # perfect
        ([-50.0, -50.0], [0.0, 0.0], 0.0),  # both empty
        ([-50.0, 50.0], [1.0, 0.0], 1 - 1 / 3),  # disjoint: 1 - (0 + 1) / (1 + 1 + 1)
    ],
    ids=["perfect", "both empty", "disjoint"],
)
def test_dice_at_its_ends(logits, targets, expected):
    """The smoothing 1 decides the empty case and keeps a disjoint one below 1."""
    torch.testing.assert_close(dice_loss(torch.tensor(logits), torch.tensor(targets)), torch.tensor(expected))


def test_pairwise_dice_is_dice_of_every_pair():
    """Equality with the plain function, pair by pair, with a leading batch dimension."""
    logits, targets = torch.randn(2, 3, 10), torch.rand(2, 4, 10)
    pairwise = pairwise_dice_loss(logits, targets)
    expected = dice_loss(logits[:, :, None].expand(2, 3, 4, 10), targets[:, None].expand(2, 3, 4, 10))
    torch.testing.assert_close(pairwise, expected)


def test_point_sample_by_hand():
    """A 2 × 2 map: pixel centres are at 1/4 and 3/4, the middle averages all four, x comes before y."""
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.5, 0.5], [0.375, 0.25]]])
    torch.testing.assert_close(point_sample(maps, points), torch.tensor([[[1.0, 2.0, 3.0, 2.5, 1.25]]]))


def test_point_sample_means_one_place_at_all_resolutions():
    """A ramp in x has the value of x at any resolution, so a map and its larger twin agree."""
    for width in (8, 32):
        ramp = ((torch.arange(width) + 0.5) / width).expand(1, 1, 4, width)
        points = torch.stack([torch.linspace(0.1, 0.9, 9), torch.full((9,), 0.5)], dim=-1)[None]
        torch.testing.assert_close(point_sample(ramp, points)[0, 0], points[0, :, 0])


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_uncertain_points_gather_at_the_border_of_a_mask():
    """Logits fall linearly through 0 at x = 1/2: the important points are the candidates nearest to it, 3/4 of all."""
    logits = torch.linspace(-8, 8, 64).expand(1, 1, 64, 64).contiguous()
    points = uncertain_points(logits, 400, generator=generator())[0, 0]
    distance = (points[:, 0] - 0.5).abs()
    drawn = torch.rand((1, 1300, 2), generator=generator())[0]
    uncertain = point_sample(logits, drawn[None, :1200])[0, 0].abs().topk(300, largest=False).indices
    assert torch.equal(distance[:300].sort().values, (drawn[uncertain, 0] - 0.5).abs().sort().values)
    assert torch.equal(points[300:], drawn[1200:])
    assert distance[:300].mean() < 0.15 < distance[300:].mean()


@pytest.mark.parametrize(("importance", "oversample"), [(0.0, 3.0), (1.0, 3.0), (0.75, 1.0), (1.0, 1.0)])
def test_uncertain_points_count_and_range(importance, oversample):
    """Whatever the ratios there are n points in [0, 1]."""
    points = uncertain_points(
        torch.randn(2, 3, 8, 8),
        10,
        oversample_ratio=oversample,
        importance_ratio=importance,
        generator=generator(),
    )
    assert points.shape == (2, 3, 10, 2) and (points >= 0).all() and (points <= 1).all()


def test_uncertain_points_do_not_depend_on_the_other_masks():
    """A mask gets the same points alone, among others and in any order: candidates are shared."""
    logits = torch.randn(2, 3, 8, 8)
    together = uncertain_points(logits, 20, generator=generator())
    alone = uncertain_points(logits[:, 1:2], 20, generator=generator())
    flipped = uncertain_points(logits.flip(1), 20, generator=generator())
    assert torch.equal(together[:, 1:2], alone) and torch.equal(together.flip(1), flipped)


def test_uncertain_points_of_no_masks():
    """C = 0: nothing, and the generator moves on as it would have."""
    first, second = generator(), generator()
    assert uncertain_points(torch.zeros(2, 0, 8, 8), 20, generator=first).shape == (2, 0, 20, 2)
    uncertain_points(torch.zeros(2, 1, 8, 8), 20, generator=second)
    assert torch.equal(first.get_state(), second.get_state())


def test_points_estimate_the_mean_over_pixels():
    """Uniform points (importance 0) are an unbiased estimate of the mean over an image."""
    maps = torch.rand(1, 1, 16, 16)
    points = uncertain_points(maps, 20000, importance_ratio=0.0, generator=generator())[0]
    inner = ((points > 1 / 32) & (points < 31 / 32)).all(-1)[0]
    assert math.isclose(point_sample(maps, points)[0, 0, inner].mean().item(), maps.mean().item(), abs_tol=0.02)
