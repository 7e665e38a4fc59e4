"""The criterion: every loss by hand, its invariances, its edges, and two processes that equal one."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from possam.criterion import Criterion, Predictions, mask_iou
from possam.matcher import HungarianMatcher
from sam_common.structures import Segments

CLASSES = 4
LOSSES = ("class", "mask", "dice", "iou")


def build(**options) -> Criterion:
    options = {"num_points": 64, **options}
    return Criterion(HungarianMatcher(num_points=64), **options)


def random_case(counts: list[int], queries: int = 6, points: int = 3, size: int = 8):
    predictions = [
        Predictions(
            torch.randn(len(counts), queries, CLASSES + 1, requires_grad=True),
            torch.randn(len(counts), queries, size, size, requires_grad=True),
            torch.rand(len(counts), queries, requires_grad=True),
        )
        for _ in range(points)
    ]
    targets = [
        Segments(torch.randint(0, CLASSES, (count,)), torch.rand(count, 2 * size, 2 * size) > 0.5) for count in counts
    ]
    seeds = [2**62 + i for i in range(len(counts))]
    return predictions, targets, seeds, [f"{i}.jpg" for i in range(len(counts))]


def quadrants(size: int = 32) -> torch.Tensor:
    """[3, size, size] bool: the upper half, and the lower half's two quarters."""
    masks = torch.zeros(3, size, size, dtype=torch.bool)
    half = size // 2
    masks[0, :half], masks[1, half:, :half], masks[2, half:, half:] = True, True, True
    return masks


def perfect_predictions(masks: torch.Tensor, classes: torch.Tensor, queries: int = 5) -> Predictions:
    class_logits = F.one_hot(F.pad(classes, (0, queries - len(classes)), value=CLASSES), CLASSES + 1) * 30.0
    mask_logits = torch.full((queries, *masks.shape[-2:]), -12.0)
    mask_logits[: len(masks)] += 24.0 * masks
    return Predictions(class_logits[None], mask_logits[None], torch.ones(1, queries))


def test_names_of_the_losses():
    """The final prediction point has no suffix, those before it are numbered; each is a scalar."""
    losses = build()(*random_case([2, 1]))
    expected = {f"loss_{name}{suffix}" for name in LOSSES for suffix in ("", "_0", "_1")}
    assert set(losses) == expected and all(loss.shape == () for loss in losses.values())


def test_final_losses_are_those_of_the_last_prediction():
    """Perfect predictions in the middle of three make the losses with suffix 1 small and no others."""
    masks, classes = quadrants(), torch.tensor([2, 0, 1])
    good = perfect_predictions(masks, classes)
    bad = Predictions(torch.zeros(1, 5, CLASSES + 1), torch.zeros(1, 5, 32, 32), torch.ones(1, 5))
    losses = build()([bad, good, bad], [Segments(classes, masks)], [1], ["x"])
    assert losses["loss_class_1"] < 0.01 < losses["loss_class"] == losses["loss_class_0"]
    assert losses["loss_iou_1"] == 0 and losses["loss_iou"] == losses["loss_iou_0"] == 1


def test_perfect_predictions_cost_nearly_nothing():
    """Class and IoU losses are 0; on uniform points BCE and dice only feel the bilinear step from pixel to pixel."""
    masks, classes = quadrants(), torch.tensor([2, 0, 1])
    criterion, truth = build(importance_ratio=0.0), [Segments(classes, masks)]
    losses = criterion([perfect_predictions(masks, classes)], truth, [1], ["x"])
    assert losses["loss_class"] < 1e-6 and losses["loss_iou"] == 0
    assert losses["loss_mask"] < 1.0 and losses["loss_dice"] < 0.25
    wrong = criterion([perfect_predictions(~masks, classes)], truth, [1], ["x"])
    assert wrong["loss_mask"] > 10 and wrong["loss_dice"] > 1


def test_class_loss_by_hand():
    """One segment of class 1, two queries with p(1) = 1/2 and 1/8, void 1/4 in both; λ = 2, void weight 0.1.

    Query 0 is matched (masks are equal, so the class cost decides): 2 (ln 2 + 0.1 ln 4) / (1 + 0.1).
    """
    probs = torch.tensor([[0.05, 0.5, 0.1, 0.1, 0.25], [0.225, 0.125, 0.2, 0.2, 0.25]])
    predictions = Predictions(probs.log()[None], torch.zeros(1, 2, 4, 4), torch.zeros(1, 2))
    target = Segments(torch.tensor([1]), torch.ones(1, 4, 4, dtype=torch.bool))
    loss = build()([predictions], [target], [0], ["x"])["loss_class"]
    expected = 2 * (probs[0, 1].log() + 0.1 * probs[1, 4].log()) / -1.1
    torch.testing.assert_close(loss, expected)


def test_class_loss_equals_weighted_cross_entropy():
    """Equality with F.cross_entropy(weight=…), whose mean is the weighted one, on the matching that was used."""
    predictions, targets, seeds, names = random_case([3, 0, 2], points=1)
    criterion = build(class_weight=1.0)
    criterion.matcher = FixedMatcher(torch.tensor([[4, 0, 2, 1, 5]]))
    loss = criterion(predictions, targets, seeds, names)["loss_class"]
    labels = torch.full((3, 6), CLASSES)
    labels[0, [4, 0, 2]], labels[2, [1, 5]] = targets[0].gt_classes, targets[2].gt_classes
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.1])
    expected = F.cross_entropy(predictions[0].class_logits.flatten(0, 1), labels.flatten(), weight=weight)
    torch.testing.assert_close(loss, expected)


class FixedMatcher(torch.nn.Module):
    """Answers with a given assignment."""

    def __init__(self, queries: torch.Tensor) -> None:
        super().__init__()
        self.queries = queries

    def forward(self, *_) -> torch.Tensor:
        return self.queries


def test_mask_losses_by_hand():
    """Constant logits x over masks that cover everything, read away from the border: the same value at every point.

    Two segments, both all ones; queries 1 and 0 with logits 0 and 2; BCE is ln(1 + e^-x), averaged over 2 segments;
    dice is 1 - (2 n p + 1) / (n p + n + 1) for n points.
    """
    logits = torch.stack([torch.full((4, 4), 2.0), torch.zeros(4, 4)])[None]
    target = Segments(torch.tensor([0, 1]), torch.ones(2, 4, 4, dtype=torch.bool))
    predictions = Predictions(torch.zeros(1, 2, CLASSES + 1), logits, torch.tensor([[0.5, 0.25]]))
    criterion = build(bce_weight=1.0, dice_weight=1.0, iou_weight=3.0)
    criterion.matcher = FixedMatcher(torch.tensor([[1, 0]]))
    inner_points = torch.rand(1, 1, 50, 2) / 2 + 0.25
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("possam.criterion.uncertain_points", lambda *_, **__: inner_points.expand(1, 2, 50, 2))
        criterion.num_points = 50
        losses = criterion([predictions], [target], [0], ["x"])
    probs = torch.tensor([0.0, 2.0]).sigmoid()
    torch.testing.assert_close(losses["loss_mask"], -probs.log().mean())
    torch.testing.assert_close(losses["loss_dice"], (1 - (100 * probs + 1) / (50 * probs + 51)).mean())
    # Logits of 0 are not above 0: IoU 0 for segment 0 (query 1, says 0.25), 1 for segment 1 (query 0, says 0.5).
    torch.testing.assert_close(losses["loss_iou"], torch.tensor(3 * (0.25**2 + 0.5**2) / 2))


def test_mask_iou_by_hand():
    """Two pixels of three shared: 2 / 4; nothing predicted and nothing there: 0, not NaN."""
    logits = torch.tensor([[[1.0, 1.0], [1.0, -1.0]], [[-1.0, -1.0], [-1.0, 0.0]]])
    truth = torch.tensor([[[1.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert mask_iou(logits, truth).tolist() == [0.5, 0.0]


def test_mask_iou_resizes_the_truth_by_area():
    """A 4 × 4 truth against 2 × 2 logits: a cell counts from half of its area on."""
    truth = torch.tensor([[[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]]])
    assert mask_iou(torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]]), truth).tolist() == [1.0]


def test_iou_target_is_detached():
    """The IoU loss teaches the IoU head alone: no gradient reaches the masks through it."""
    predictions, *rest = random_case([3], points=1)
    losses = build(class_weight=0, bce_weight=0, dice_weight=0)(predictions, *rest)
    losses["loss_iou"].backward()
    assert predictions[0].mask_logits.grad is None or not predictions[0].mask_logits.grad.any()
    assert (predictions[0].iou.grad != 0).sum() == 3


@pytest.mark.parametrize("name", LOSSES)
def test_a_weight_of_zero_switches_a_loss_off(name):
    """Its loss is 0 at all prediction points and the others are as before."""
    option = {"class": "class_weight", "mask": "bce_weight", "dice": "dice_weight", "iou": "iou_weight"}[name]
    case = random_case([2, 3])
    with_it, without = build()(*case), build(**{option: 0.0})(*case)
    for key, loss in without.items():
        assert loss == (0 if key.startswith(f"loss_{name}") else with_it[key])


def test_order_of_segments_does_not_matter():
    """Permuting the segments of an image changes no loss beyond rounding."""
    predictions, targets, seeds, names = random_case([5, 4])
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = [Segments(targets[0].gt_classes[order], targets[0].gt_masks[order]), targets[1]]
    torch.testing.assert_close(
        build()(predictions, shuffled, seeds, names), build()(predictions, targets, seeds, names)
    )


def test_order_of_images_does_not_matter():
    """Reversing the batch changes no loss beyond rounding: points belong to an image's seed, not to its place."""
    predictions, targets, seeds, names = random_case([2, 0, 4])
    reversed_predictions = [
        Predictions(p.class_logits.flip(0), p.mask_logits.flip(0), p.iou.flip(0)) for p in predictions
    ]
    torch.testing.assert_close(
        build()(reversed_predictions, targets[::-1], seeds[::-1], names[::-1]),
        build()(predictions, targets, seeds, names),
    )


def test_seeds_decide_the_points():
    """The same seeds repeat the losses to the last bit; other seeds draw other points."""
    predictions, targets, seeds, names = random_case([2, 3])
    first, again = (build()(predictions, targets, seeds, names) for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = build()(predictions, targets, [seed + 1 for seed in seeds], names)
    assert first["loss_mask"] != other["loss_mask"]


def test_batch_without_segments_is_finite_and_connected():
    """Nothing to match: mask losses are 0, the class loss pulls to void, and every prediction gets a gradient."""
    predictions, targets, seeds, names = random_case([0, 0])
    losses = build()(predictions, targets, seeds, names)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask"] == losses["loss_dice"] == losses["loss_iou"] == 0 < losses["loss_class"]
    sum(losses.values()).backward()
    for prediction in predictions:
        assert prediction.class_logits.grad.any()
        assert not prediction.mask_logits.grad.any() and not prediction.iou.grad.any()


def test_more_segments_than_queries():
    """Left-over segments teach nothing: gradients reach each query once and all values are finite."""
    predictions, targets, seeds, names = random_case([9, 2], queries=3)
    losses = build()(predictions, targets, seeds, names)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert (predictions[0].iou.grad != 0).sum(1).tolist() == [3, 2]


def test_unmatched_segments_count_as_zero():
    """With queries -1 for one of two segments the mask losses are halved, as the divisor counts segments."""
    predictions, targets, seeds, names = random_case([1], points=1)
    one = build()
    one.matcher = FixedMatcher(torch.tensor([[2]]))
    two = build()
    two.matcher = FixedMatcher(torch.tensor([[2, -1]]))
    doubled = [Segments(targets[0].gt_classes.repeat(2), targets[0].gt_masks.repeat(2, 1, 1))]
    single, double = one(predictions, targets, seeds, names), two(predictions, doubled, seeds, names)
    for name in ("mask", "dice", "iou"):
        torch.testing.assert_close(double[f"loss_{name}"], single[f"loss_{name}"] / 2)


def test_divisors_of_a_part_are_those_of_the_batch():
    """By hand: a part of 2 and 0 segments in a batch of 2, 0, 9 (of 6 queries) and 1; void counts 0.1.

    12 segments instead of 2, and 9 + 0.1 · 15 of class weight instead of 2 + 0.1 · 10.
    """
    case = random_case([2, 0])
    alone, part = build()(*case), build()(*case, batch_counts=[2, 0, 9, 1])
    for key, loss in alone.items():
        ratio = 3.0 / 10.5 if "class" in key else 2 / 12
        torch.testing.assert_close(part[key], loss * ratio)


def test_float32_under_autocast():
    """Half-precision predictions under autocast give float32 losses, equal to those of the same values in float32."""
    predictions, targets, seeds, names = random_case([2, 3])
    halves = [Predictions(p.class_logits.bfloat16(), p.mask_logits.bfloat16(), p.iou.bfloat16()) for p in predictions]
    floats = [Predictions(p.class_logits.float(), p.mask_logits.float(), p.iou.float()) for p in halves]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = build()(halves, targets, seeds, names)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    torch.testing.assert_close(losses, build()(floats, targets, seeds, names))


def test_a_loss_that_is_not_finite_is_shown_and_named(caplog):
    """NaN in the IoU head touches no cost; the loss stays NaN for the loop to see, and the log names the batch."""
    predictions, targets, seeds, names = random_case([2, 3])
    predictions[1] = Predictions(
        predictions[1].class_logits, predictions[1].mask_logits, predictions[1].iou * float("nan")
    )
    with caplog.at_level(logging.WARNING):
        losses = build()(predictions, targets, seeds, names)
    assert losses["loss_iou_1"].isnan() and losses["loss_iou"].isfinite()
    assert "0.jpg, 1.jpg" in caplog.text


TWO_PROCESSES = """
import sys, torch, torch.distributed as dist
from possam.criterion import Criterion, Predictions
from possam.matcher import HungarianMatcher
from sam_common.structures import Segments
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
case = torch.load(f"{folder}/case_{rank}.pt", weights_only=True)
leaves = [[x.requires_grad_() for x in point] for point in case["predictions"]]
criterion = Criterion(HungarianMatcher(num_points=64), num_points=64)
losses = criterion([Predictions(*point) for point in leaves], [Segments(*t) for t in case["targets"]], case["seeds"],
                   ["x"] * len(case["seeds"]))
sum(losses.values()).backward()
grads = [[x.grad for x in point] for point in leaves]
torch.save({"losses": {k: v.detach() for k, v in losses.items()}, "grads": grads}, f"{folder}/result_{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_equal_one(tmp_path):
    """Real processes with unequal shares (7 segments and none): the mean of their losses is that of one process with
    the whole batch, and so are their gradients once DDP has averaged them."""
    predictions, targets, seeds, names = random_case([4, 3, 0], points=2)
    shares = [slice(0, 2), slice(2, 3)]
    for rank, share in enumerate(shares):
        case = {
            "predictions": [[x.detach()[share] for x in vars(p).values()] for p in predictions],
            "targets": [[t.gt_classes, t.gt_masks] for t in targets[share]],
            "seeds": seeds[share],
        }
        torch.save(case, tmp_path / f"case_{rank}.pt")
    commands = [[sys.executable, "-c", TWO_PROCESSES, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for command in commands]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    results = [torch.load(tmp_path / f"result_{rank}.pt", weights_only=True) for rank in range(2)]

    whole = build()(predictions, targets, seeds, names)
    sum(whole.values()).backward()
    mean = {key: (results[0]["losses"][key] + results[1]["losses"][key]) / 2 for key in whole}
    torch.testing.assert_close(mean, {key: loss.detach() for key, loss in whole.items()})
    for p, prediction in enumerate(predictions):
        for i, leaf in enumerate(vars(prediction).values()):
            grads = torch.cat([result["grads"][p][i] for result in results]) / 2
            torch.testing.assert_close(grads, leaf.grad)
