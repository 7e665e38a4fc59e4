"""Panoptic, semantic and instance inference against slow loops over pixels, and at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from possam import panoptic_inference
from possam.panoptic_inference import instances, panoptic, semantic, semantic_labels

IS_THING = torch.tensor([True, False, True, False])
VOID = 4


def panoptic_pixel_by_pixel(scores, mask_logits, is_thing, overlap=0.8, mask_threshold=0.5, score_threshold=0.0):
    """The definition, as loops over Python lists."""
    probs = mask_logits.sigmoid().tolist()
    height, width = mask_logits.shape[-2:]
    best = [max(range(len(row)), key=lambda c: row[c]) for row in scores.tolist()]
    value = [scores[q, best[q]].item() for q in range(len(best))]
    alive = [q for q in range(len(best)) if best[q] != scores.shape[1] - 1 and value[q] > score_threshold]
    result = [[0] * width for _ in range(height)]
    pixels = {q: [] for q in alive}
    for y in range(height):
        for x in range(width):
            if alive:
                pixels[max(alive, key=lambda q: value[q] * probs[q][y][x])].append((y, x))
    segments, stuff = [], {}
    for q in alive:
        own = sum(p >= mask_threshold for row in probs[q] for p in row)
        inside = [(y, x) for y, x in pixels[q] if probs[q][y][x] >= mask_threshold]
        if not inside or len(pixels[q]) / own < overlap:
            continue
        if best[q] in stuff:
            segment = stuff[best[q]]
            segment["score"] = max(segment["score"], value[q])
        else:
            thing = bool(is_thing[best[q]])
            segment = {"id": len(segments) + 1, "category_id": best[q], "isthing": thing, "score": value[q]}
            segments.append(segment)
            if not thing:
                stuff[best[q]] = segment
        for y, x in inside:
            result[y][x] = segment["id"]
    return torch.tensor(result, dtype=torch.int32), segments


def one_hot_scores(labels: list[int], values: list[float]) -> torch.Tensor:
    scores = torch.zeros(len(labels), VOID + 1)
    scores[range(len(labels)), labels] = torch.tensor(values)
    return scores


def block_logits(*columns: tuple[int, int], size: int = 8, value: float = 10.0) -> torch.Tensor:
    """Masks that cover all rows of columns [start, stop)."""
    logits = torch.full((len(columns), size, size), -value)
    for q, (start, stop) in enumerate(columns):
        logits[q, :, start:stop] = value
    return logits


@pytest.mark.parametrize("seed", range(12))
def test_panoptic_equals_the_loop_over_pixels(seed):
    """Equality with the definition on smooth random masks that overlap, hide each other and share stuff classes."""
    torch.manual_seed(seed)
    coarse = torch.randn(1, 9, 4, 5) * 6
    mask_logits = torch.nn.functional.interpolate(coarse, (12, 15), mode="bilinear")[0]
    scores = (torch.randn(9, 5) * 3).softmax(-1)
    options = {"overlap_threshold": [0.8, 0.3][seed % 2], "mask_threshold": [0.5, 0.7][seed % 3 == 0]}
    ids, segments = panoptic(scores, mask_logits, IS_THING, **options, score_threshold=0.4 * (seed % 4 == 0))
    expected_ids, expected = panoptic_pixel_by_pixel(
        scores,
        mask_logits,
        IS_THING,
        options["overlap_threshold"],
        options["mask_threshold"],
        0.4 * (seed % 4 == 0),
    )
    assert torch.equal(ids, expected_ids) and ids.dtype == torch.int32
    assert [{**s, "score": 0} for s in segments] == [{**s, "score": 0} for s in expected]
    assert [s["score"] for s in segments] == pytest.approx([s["score"] for s in expected])


@pytest.mark.parametrize("seed", range(6))
def test_queries_that_take_no_part_change_nothing(seed):
    """Left among the others, as on a GPU, void queries and those of a low score win no pixel from anybody."""
    torch.manual_seed(seed)
    mask_logits = torch.nn.functional.interpolate(torch.randn(1, 9, 4, 5) * 200, (12, 15), mode="bilinear")[0]
    scores, labels = torch.rand(9), torch.randint(0, 3, (9,))
    kept, thing = torch.rand(9) < 0.5, IS_THING[labels]
    ids, of_queries = panoptic_inference._segment(scores, labels, thing, kept, mask_logits, 0.3, 0.5)
    few = [x[kept] for x in (scores, labels, thing, kept, mask_logits)]
    expected, of_few = panoptic_inference._segment(*few, 0.3, 0.5)
    assert torch.equal(ids, expected) and ids.any()
    assert torch.equal(of_queries[kept], of_few) and not of_queries[~kept].any()


def test_a_gpu_is_waited_for_once(monkeypatch):
    """Fake tensors of a GPU refuse whatever needs a value on the host; one table of four numbers a query is read."""
    read = []

    def tolist(tensor):
        read.append(tuple(tensor.shape))
        return [[1.0, 0.0, 1.0, 0.5]] * len(tensor)

    monkeypatch.setattr(FakeTensor, "tolist", tolist)
    with FakeTensorMode():
        scores, mask_logits = torch.rand(9, 5, device="cuda"), torch.randn(9, 12, 15, device="cuda")
        ids, segments = panoptic(scores, mask_logits, torch.ones(4, dtype=torch.bool, device="cuda"))
        labels = semantic_labels(scores, mask_logits)
    assert ids.device.type == labels.device.type == "cuda" and len(segments) == 1
    assert read == [(9, 4)]


def test_panoptic_has_interesting_cases():
    """The random cases above are not trivial: over the seeds there are segments, void pixels and dropped queries."""
    torch.manual_seed(0)
    mask_logits = torch.nn.functional.interpolate(torch.randn(1, 9, 4, 5) * 6, (12, 15), mode="bilinear")[0]
    ids, segments = panoptic((torch.randn(9, 5) * 3).softmax(-1), mask_logits, IS_THING, overlap_threshold=0.3)
    assert len(segments) >= 2 and (ids == 0).any()


def test_panoptic_by_hand():
    """Two things side by side, stuff behind them: every pixel's segment is known."""
    scores = one_hot_scores([0, 0, 1], [0.9, 0.8, 0.7])
    ids, segments = panoptic(scores, block_logits((0, 2), (2, 4), (4, 8)), IS_THING)
    assert ids[0].tolist() == [1, 1, 2, 2, 3, 3, 3, 3] and torch.equal(ids, ids[:1].expand(8, 8))
    assert [(s["id"], s["category_id"], s["isthing"]) for s in segments] == [(1, 0, True), (2, 0, True), (3, 1, False)]
    assert [s["score"] for s in segments] == pytest.approx([0.9, 0.8, 0.7])
    assert all(type(s["isthing"]) is bool and type(s["id"]) is int for s in segments)


def test_stuff_of_one_class_is_merged_and_things_are_not():
    """Three queries of stuff class 1 become one segment with the best score; two of thing 0 stay two."""
    scores = one_hot_scores([1, 0, 1, 0, 1], [0.5, 0.6, 0.9, 0.6, 0.7])
    ids, segments = panoptic(scores, block_logits((0, 1), (1, 3), (3, 5), (5, 7), (7, 8)), IS_THING)
    assert ids[0].tolist() == [1, 2, 2, 1, 1, 3, 3, 1]
    assert [s["category_id"] for s in segments] == [1, 0, 0]
    assert segments[0]["score"] == pytest.approx(0.9)


@pytest.mark.parametrize(("hidden", "kept"), [(1, True), (2, False)])
def test_overlap_threshold(hidden, kept):
    """A mask of 8 columns of which a better one covers 1 keeps 87.5% and stays; covered in 2 it keeps 75% and goes."""
    scores = one_hot_scores([0, 2], [0.9, 0.8])
    ids, segments = panoptic(scores, block_logits((0, hidden), (0, 8)), IS_THING)
    assert len(segments) == 1 + kept
    assert (ids[:, hidden:] == (2 if kept else 0)).all() and (ids[:, :hidden] == 1).all()


def test_overlap_threshold_is_met_by_equality():
    """Exactly 0.8 of 10 columns is enough."""
    scores = one_hot_scores([0, 2], [0.9, 0.8])
    _, segments = panoptic(scores, block_logits((0, 2), (0, 10), size=10), IS_THING)
    assert len(segments) == 2


def test_ties_go_to_the_first_query():
    """Two equal queries: the first wins every pixel, the second is hidden and dropped."""
    ids, segments = panoptic(one_hot_scores([0, 2], [0.5, 0.5]), block_logits((0, 8), (0, 8)), IS_THING)
    assert (ids == 1).all() and [s["category_id"] for s in segments] == [0]


def test_a_void_query_claims_nothing():
    """A void query with the best score hides nobody: void queries do not compete."""
    scores = one_hot_scores([VOID, 0], [0.99, 0.2])
    ids, segments = panoptic(scores, block_logits((0, 8), (0, 8)), IS_THING)
    assert (ids == 1).all() and segments[0]["category_id"] == 0


@pytest.mark.parametrize(
    ("scores", "mask_logits"),
    [
        (one_hot_scores([VOID, VOID], [0.9, 0.8]), block_logits((0, 4), (4, 8))),
        (torch.zeros(2, VOID + 1), block_logits((0, 4), (4, 8))),
        (one_hot_scores([0, 1], [0.9, 0.8]), torch.full((2, 8, 8), -5.0)),
        (torch.zeros(0, VOID + 1), torch.zeros(0, 8, 8)),
    ],
    ids=["all void", "all scores zero", "empty masks", "no queries"],
)
def test_nothing_kept_is_all_void(scores, mask_logits):
    """Edge cases with no segment: an int32 map of zeros and no segments."""
    ids, segments = panoptic(scores, mask_logits, IS_THING)
    assert ids.shape == (8, 8) and ids.dtype == torch.int32 and not ids.any() and segments == []


def test_one_class_and_all_stuff():
    """A vocabulary of one stuff class: all of its queries are one segment."""
    scores = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    ids, segments = panoptic(scores, block_logits((0, 4), (4, 8)), torch.tensor([False]))
    assert (ids == 1).all() and len(segments) == 1 and segments[0]["isthing"] is False


def test_semantic_is_the_weighted_sum_of_masks():
    """By hand: class 0 has 0.5 · 0.25 + 0.2 · 0.8 at a pixel of mask probabilities 0.25 and 0.8; void is left out."""
    logits = torch.logit(torch.tensor([0.25, 0.8])).view(2, 1, 1)
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.1, 0.7]])
    torch.testing.assert_close(semantic(scores, logits).flatten(), torch.tensor([0.285, 0.155]))


def instances_by_loop(scores, mask_logits, is_thing, max_instances):
    pairs = [(-scores[q, c].item(), q, c) for q in range(len(scores)) for c in range(scores.shape[1] - 1)]
    found = []
    for negative, q, c in sorted(pairs)[:max_instances]:
        mask = mask_logits[q] > 0
        quality = mask_logits[q].sigmoid()[mask].mean().item() if mask.any() else 0.0
        if is_thing[c]:
            found.append((-negative * quality, q, c))
    return sorted(found, key=lambda item: -item[0])


@pytest.mark.parametrize("max_instances", [1, 7, 100])
def test_instances_equal_the_loop(max_instances):
    """Equality with the definition: best pairs, then stuff dropped, times the mean probability inside the mask."""
    mask_logits = torch.randn(6, 5, 9) * 3
    scores = (torch.randn(6, 5) * 2).softmax(-1)
    result = instances(scores, mask_logits, IS_THING, max_instances=max_instances)
    expected = instances_by_loop(scores, mask_logits, IS_THING, max_instances)
    assert result.pred_classes.tolist() == [c for _, _, c in expected]
    assert result.scores.tolist() == pytest.approx([value for value, _, _ in expected], abs=1e-6)
    for mask, (_, q, _) in zip(result.pred_masks, expected, strict=True):
        assert torch.equal(mask, mask_logits[q] > 0)
    assert result.image_size == (5, 9) and result.pred_classes.dtype == torch.int64


def test_stuff_uses_up_places_of_instances():
    """With one place and a stuff pair best, nothing is left."""
    result = instances(one_hot_scores([1, 0], [0.9, 0.8]), block_logits((0, 4), (4, 8)), IS_THING, max_instances=1)
    assert len(result) == 0 and result.pred_masks.shape == (0, 8, 8) and result.pred_boxes.shape == (0, 4)


def test_equal_instances_keep_the_order_of_queries():
    """Ties: query 0 before query 1, class 0 before class 2."""
    scores = torch.tensor([[0.3, 0.1, 0.3, 0.0, 0.0]]).expand(2, -1)
    result = instances(scores, block_logits((0, 4), (4, 8)), IS_THING, max_instances=4)
    assert result.pred_classes.tolist() == [0, 2, 0, 2]
    assert result.pred_boxes[:, 0].tolist() == [0, 0, 4, 4]


def test_instances_score_by_hand():
    """score 0.9 × mean of probabilities 0.6 and 0.8 inside the mask; 0.1 outside does not count."""
    logits = torch.logit(torch.tensor([[[0.6, 0.8, 0.1]]]))
    result = instances(one_hot_scores([0], [0.9]), logits, IS_THING, max_instances=1)
    assert result.scores.item() == pytest.approx(0.9 * 0.7)


def test_empty_mask_scores_zero():
    """A mask without pixels: score 0 and an empty box, not NaN."""
    result = instances(one_hot_scores([0], [0.9]), torch.full((1, 4, 4), -3.0), IS_THING, max_instances=1)
    assert result.scores.tolist() == [0.0] and result.pred_boxes.tolist() == [[0, 0, 0, 0]]


def test_no_queries_no_instances():
    """Q = 0 in, nothing out."""
    assert len(instances(torch.zeros(0, 5), torch.zeros(0, 4, 4), IS_THING)) == 0


def test_scores_are_not_normalised_again():
    """Scores that sum to less than one keep their values: log(0.3) is nowhere taken."""
    _, segments = panoptic(torch.tensor([[0.3, 0.2, 0.0, 0.0, 0.1]]), block_logits((0, 8)), IS_THING)
    assert math.isclose(segments[0]["score"], 0.3, rel_tol=1e-6)


def test_strips_decide_as_the_whole_image(monkeypatch):
    """Areas are of whole masks, also where they are counted a row at a time."""
    torch.manual_seed(0)
    mask_logits = torch.nn.functional.interpolate(torch.randn(1, 9, 4, 5) * 6, (12, 15), mode="bilinear")[0]
    scores = (torch.randn(9, 5) * 3).softmax(-1)
    expected, segments = panoptic(scores, mask_logits, IS_THING, overlap_threshold=0.3)
    for cells in (1, 5 * 9 * 15):
        monkeypatch.setattr(panoptic_inference, "_STRIP", cells)
        ids, found = panoptic(scores, mask_logits, IS_THING, overlap_threshold=0.3)
        assert torch.equal(ids, expected) and found == segments and len(found) > 1


def test_labels_made_in_strips_are_the_argmax_of_the_scores(monkeypatch):
    """Equality with `semantic`: strips of one row, of three of the seven rows, and all at once."""
    scores, masks = torch.rand(5, 12), torch.randn(5, 7, 9)
    expected = semantic(scores, masks).argmax(0)
    for cells in (1, 3 * 12 * 9, 10**6):
        monkeypatch.setattr(panoptic_inference, "_STRIP", cells)
        assert torch.equal(semantic_labels(scores, masks), expected)
