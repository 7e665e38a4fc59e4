"""The matcher: optimal, independent for each image and prediction point, and hard to crash."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from possam.matcher import HungarianMatcher, pairwise_bce_loss
from possam.point_losses import dice_loss, point_sample

CLASSES = 4


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def random_case(counts: list[int], queries: int = 5, predictions: int = 2, size: int = 8):
    class_logits = [torch.randn(len(counts), queries, CLASSES + 1) for _ in range(predictions)]
    mask_logits = [torch.randn(len(counts), queries, size, size) * 4 for _ in range(predictions)]
    gt_classes = [torch.randint(0, CLASSES, (count,)) for count in counts]
    gt_masks = [(torch.rand(count, 2 * size, 2 * size) > 0.5).float() for count in counts]
    return class_logits, mask_logits, gt_classes, gt_masks


def slow_costs(class_logits, mask_logits, gt_classes, gt_masks, points, weights=(2.0, 5.0, 5.0)) -> np.ndarray:
    """[Q, T] costs of one image at one prediction point, pair by pair with PyTorch's own losses."""
    predicted = point_sample(mask_logits[None], points[None])[0]
    truth = point_sample(gt_masks[None], points[None])[0]
    costs = np.zeros((len(predicted), len(truth)))
    for q, t in itertools.product(range(len(predicted)), range(len(truth))):
        class_cost = -class_logits[q].softmax(-1)[gt_classes[t]]
        bce = F.binary_cross_entropy_with_logits(predicted[q], truth[t])
        dice = dice_loss(predicted[q], truth[t])
        costs[q, t] = weights[0] * class_cost + weights[1] * bce + weights[2] * dice
    return costs


def test_pairwise_bce_equals_pytorch():
    """Equality with binary_cross_entropy_with_logits on every pair, for large logits too."""
    logits, targets = torch.randn(3, 20) * 30, torch.rand(4, 20)
    expected = F.binary_cross_entropy_with_logits(
        logits[:, None].expand(3, 4, 20), targets[None].expand(3, 4, 20), reduction="none"
    )
    torch.testing.assert_close(pairwise_bce_loss(logits, targets), expected.mean(-1))


@pytest.mark.parametrize("seed", range(5))
def test_assignment_is_the_best_of_all_permutations(seed):
    """Brute force: no assignment of queries to segments is cheaper, at each prediction point and image of a batch."""
    torch.manual_seed(seed)
    counts = [3, 0, 2]
    class_logits, mask_logits, gt_classes, gt_masks = case = random_case(counts)
    matcher = HungarianMatcher(num_points=40)
    assigned = matcher(*case, generators(1, 2, 3), ["a", "b", "c"])
    points = [torch.rand((2, 40, 2), generator=generator) for generator in generators(1, 2, 3)]
    for p in range(2):
        for b, queries in enumerate(assigned[p].split(counts)):
            costs = slow_costs(class_logits[p][b], mask_logits[p][b], gt_classes[b], gt_masks[b], points[b][p])
            columns = range(counts[b])
            cheapest = min(costs[list(rows), columns].sum() for rows in itertools.permutations(range(5), counts[b]))
            assert costs[queries.numpy(), columns].sum() == pytest.approx(cheapest, abs=1e-5)
            assert len(set(queries.tolist())) == counts[b]


def test_perfect_queries_are_found_in_any_order():
    """Queries that reproduce the segments, shuffled: each segment gets its own."""
    masks = torch.zeros(3, 8, 8)
    masks[0, :4], masks[1, 4:, :4], masks[2, 4:, 4:] = 1, 1, 1
    order = torch.tensor([2, 0, 1])
    logits = (masks * 20 - 10)[order][None]
    classes = F.one_hot(torch.tensor([0, 1, 2]), CLASSES + 1)[order][None] * 10.0
    queries = HungarianMatcher(num_points=64)(
        [classes], [logits], [torch.tensor([0, 1, 2])], [masks], generators(0), ["x"]
    )
    assert order[queries[0]].tolist() == [0, 1, 2]


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_each_cost_counts_by_its_weight(weights):
    """With one cost alone the assignment is the best by that cost."""
    class_logits, mask_logits, gt_classes, gt_masks = case = random_case([3], predictions=1)
    matcher = HungarianMatcher(class_weight=weights[0], bce_weight=weights[1], dice_weight=weights[2], num_points=30)
    queries = matcher(*case, generators(4), ["x"])[0]
    points = torch.rand((1, 30, 2), generator=generators(4)[0])[0]
    costs = slow_costs(class_logits[0][0], mask_logits[0][0], gt_classes[0], gt_masks[0], points, weights)
    cheapest = min(costs[list(rows), range(3)].sum() for rows in itertools.permutations(range(5), 3))
    assert costs[queries.numpy(), range(3)].sum() == pytest.approx(cheapest, abs=1e-5)


def test_more_segments_than_queries():
    """Every query is used once and the segments left over get -1."""
    queries = HungarianMatcher(num_points=16)(*random_case([7], queries=3), generators(0), ["x"])
    assert queries.shape == (2, 7)
    for row in queries.tolist():
        assert sorted(row) == [-1, -1, -1, -1, 0, 1, 2]


def test_no_segments_at_all():
    """A batch of images without objects: an empty assignment for each prediction point."""
    queries = HungarianMatcher(num_points=16)(*random_case([0, 0]), generators(0, 1), ["x", "y"])
    assert queries.shape == (2, 0) and queries.dtype == torch.int64


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["class", "mask"])
def test_values_that_are_not_finite_are_survived_and_named(value, where, caplog):
    """One bad query: its image alone is named in the log, and the good queries are matched."""
    class_logits, mask_logits, gt_classes, gt_masks = random_case([3, 3])
    (class_logits if where == "class" else mask_logits)[1][1, 2] = value
    with caplog.at_level(logging.WARNING):
        queries = HungarianMatcher(num_points=16)(
            class_logits, mask_logits, gt_classes, gt_masks, generators(0, 1), ["good.jpg", "bad.jpg"]
        )
    assert "bad.jpg" in caplog.text and "good.jpg" not in caplog.text
    assert 2 not in queries[1, 3:]


def test_everything_not_finite(caplog):
    """A diverged network still gets an assignment: the training loop decides what to do, not a crash."""
    class_logits, mask_logits, gt_classes, gt_masks = random_case([3])
    queries = HungarianMatcher(num_points=16)(
        [x * float("nan") for x in class_logits],
        [x * float("nan") for x in mask_logits],
        gt_classes,
        gt_masks,
        generators(0),
        ["x"],
    )
    assert all(len(set(row)) == 3 for row in queries.tolist())


def test_batch_mates_change_nothing():
    """An image is matched alike alone and in a batch: its points come from its own generator."""
    class_logits, mask_logits, gt_classes, gt_masks = case = random_case([3, 2, 4])
    matcher = HungarianMatcher(num_points=16)
    together = matcher(*case, generators(1, 2, 3), ["a", "b", "c"])
    alone = matcher(
        [x[1:2] for x in class_logits],
        [x[1:2] for x in mask_logits],
        gt_classes[1:2],
        gt_masks[1:2],
        generators(2),
        "b",
    )
    assert torch.equal(together[:, 3:5], alone)


def test_prediction_points_use_different_points():
    """Points are drawn anew at every prediction point: equal predictions whose costs are close match differently."""
    class_logits, mask_logits, gt_classes, gt_masks = random_case([4], queries=12, predictions=1)
    matcher = HungarianMatcher(class_weight=0.0, num_points=2)
    queries = matcher(class_logits * 10, mask_logits * 10, gt_classes, gt_masks, generators(1), ["x"])
    assert len({tuple(row) for row in queries.tolist()}) > 1


def test_autocast_changes_nothing():
    """Float32 even under autocast: the same costs to the last bit."""
    case = random_case([3, 2])
    matcher = HungarianMatcher(num_points=16)
    args = [case[0], case[1], case[2], case[3]]
    plain = matcher._costs(*args, generators(1, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries = matcher(*args, generators(1, 2), ["a", "b"])
    assert plain.dtype == torch.float32
    assert torch.equal(queries, matcher(*args, generators(1, 2), ["a", "b"]))
