"""MASE: the invariants that define it, and the other ensembles beside it."""

from __future__ import annotations

import math

import pytest
import torch

from possam.mask_aware_selective_ensemble import (
    ClipOnly,
    GeometricEnsemble,
    LdpOnly,
    SelectiveEnsemble,
    ensemble_weights,
    selective_ensemble,
)
from sam_common.errors import UserError

GRANULARITIES = ("group", "mask", "element")
SEEN = torch.tensor([True, True, True, False, False])


def random_logits(queries: int = 7, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(queries, 6) * scale, torch.randn(queries, 5) * scale, torch.rand(queries)


def weights_of(ldp: torch.Tensor, clip: torch.Tensor, granularity: str = "group", alpha=0.4, beta=0.8) -> torch.Tensor:
    return ensemble_weights(ldp.log_softmax(-1), clip.log_softmax(-1), SEEN, alpha, beta, 1.0, granularity)


def test_one_mask_by_hand():
    """Derived by hand: two classes, one seen and one unseen.

    p_L = (1/2, 1/2), p_C = (1/4, 3/4), v = 1/3 (three equal logits). τ = 1, α = β = 1/2:
    w_seen = sigmoid(ln(1/4) - ln(1/2)) = (1/2) / (1 + 1/2) = 1/3, w_unseen = sigmoid(ln(3/2)) = 3/5.
    r_seen = 2/3 ln(1/2) + 1/3 ln(1/4) = ln(2^(-4/3)), r_unseen = 2/5 ln(1/2) + 3/5 ln(3/4) = ln(0.5^0.4 · 0.75^0.6).
    """
    clip = torch.tensor([[0.25, 0.75]]).log()
    scores = selective_ensemble(torch.zeros(1, 3), clip, torch.tensor([0.6]), torch.tensor([1, 0]), 0.5, 0.5)
    a, b = 2 ** (-4 / 3), 0.5**0.4 * 0.75**0.6
    expected = torch.tensor([[0.6 * 2 / 3 * a / (a + b), 0.6 * 2 / 3 * b / (a + b), 1 / 3]])
    torch.testing.assert_close(scores, expected)


def test_strength_zero_is_the_geometric_ensemble():
    """Equality with p_ldp^(1-a) p_clip^a, renormalised, times (1 - void), written out separately."""
    ldp, clip, _ = random_logits()
    iou = torch.ones(7)
    exponent = torch.where(SEEN, 0.4, 0.8)
    product = ldp[:, :-1].softmax(-1) ** (1 - exponent) * clip.softmax(-1) ** exponent
    void = ldp.softmax(-1)[:, -1:]
    expected = torch.cat([product / product.sum(-1, keepdim=True) * (1 - void), void], dim=-1)
    for granularity in GRANULARITIES:
        scores = selective_ensemble(ldp, clip, iou, SEEN, strength=0.0, granularity=granularity)
        torch.testing.assert_close(scores, expected)
        assert torch.equal(scores, GeometricEnsemble()(ldp, clip, iou, SEEN))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_equal_confidence_keeps_the_prior_weights(granularity):
    """Where both classifiers say the same, w = a exactly as configured."""
    logits = torch.randn(4, 5)
    weights = weights_of(logits, logits, granularity)
    torch.testing.assert_close(weights, torch.where(SEEN, 0.4, 0.8).expand(4, 5))


def test_confidence_of_ldp_in_a_group_lowers_that_groups_weight():
    """Raising the best log-probability of LDP among the unseen classes strictly lowers w there, group by group."""
    _, clip, _ = random_logits()
    log_ldp = torch.randn(7, 5).log_softmax(-1)
    raised = log_ldp.clone()
    raised[:, 3:] += 0.5
    before, after = (ensemble_weights(x, clip.log_softmax(-1), SEEN, 0.4, 0.8, 1.0) for x in (log_ldp, raised))
    assert (after[:, 3:] < before[:, 3:]).all()
    assert torch.equal(after[:, :3], before[:, :3])


def test_granularity_says_what_shares_a_weight():
    """`group`: one weight in each group of a mask; `mask`, α = β: one in each mask; `element`: one in each entry."""
    ldp, clip, _ = random_logits()
    ldp = ldp[:, :-1]
    group = weights_of(ldp, clip, "group")
    assert torch.equal(group[:, :3], group[:, :1].expand(-1, 3)) and torch.equal(group[:, 3], group[:, 4])
    mask = weights_of(ldp, clip, "mask", 0.5, 0.5)
    assert torch.equal(mask, mask[:, :1].expand(-1, 5))
    difference = clip.log_softmax(-1) - ldp.log_softmax(-1)
    torch.testing.assert_close(weights_of(ldp, clip, "element", 0.5, 0.5), difference.sigmoid())


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("weight", "single"), [(0.0, LdpOnly()), (1.0, ClipOnly())])
def test_extreme_priors_are_one_classifier_alone(granularity, weight, single):
    """α = β = 0 is LDP alone and α = β = 1 is CLIP alone, whatever the confidences."""
    ldp, clip, iou = random_logits()
    scores = selective_ensemble(ldp, clip, iou, SEEN, weight, weight, granularity=granularity)
    torch.testing.assert_close(scores, single(ldp, clip, iou, SEEN))


def test_single_classifiers_are_their_softmax_without_void():
    """By definition: iou (1 - v) softmax over the classes, and the trained classifier's void, for both."""
    ldp, clip, iou = random_logits()
    void = ldp.softmax(-1)[:, -1]
    ldp_scores, clip_scores = LdpOnly()(ldp, clip, iou, SEEN), ClipOnly()(ldp, clip, iou, SEEN)
    torch.testing.assert_close(ldp_scores[:, :-1], iou[:, None] * ldp.softmax(-1)[:, :-1])
    torch.testing.assert_close(clip_scores[:, :-1], (iou * (1 - void))[:, None] * clip.softmax(-1))
    assert torch.equal(ldp_scores[:, -1], void) and torch.equal(clip_scores[:, -1], void)


ENSEMBLES = [SelectiveEnsemble(granularity=g) for g in GRANULARITIES] + [GeometricEnsemble(), LdpOnly(), ClipOnly()]


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_rows_sum_to_quality_times_not_void_plus_void(ensemble):
    """A row sums to p_iou (1 - v) + v, for leading dimensions of any number."""
    ldp, clip, iou = torch.randn(2, 3, 7, 6), torch.randn(2, 3, 7, 5), torch.rand(2, 3, 7)
    scores = ensemble(ldp, clip, iou, SEEN)
    void = ldp.softmax(-1)[..., -1]
    torch.testing.assert_close(scores.sum(-1), iou * (1 - void) + void)
    assert scores.shape == (2, 3, 7, 6)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_worthless_mask_is_void(ensemble):
    """p_iou = 0 makes void win even where void's own probability is tiny."""
    ldp, clip, _ = random_logits()
    ldp[:, -1] = -15.0
    assert (ensemble(ldp, clip, torch.zeros(7), SEEN).argmax(-1) == 5).all()


@pytest.mark.parametrize("seen", [torch.ones(5).bool(), torch.zeros(5).bool(), SEEN])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("prior", [(0.4, 0.8), (0.0, 1.0)])
def test_extreme_inputs_stay_finite(seen, granularity, prior):
    """Logits of several hundreds, in half precision too, and vocabularies without seen or without unseen classes."""
    ldp, clip, iou = random_logits(scale=300.0)
    for dtype in (torch.float32, torch.bfloat16):
        scores = selective_ensemble(ldp.to(dtype), clip.to(dtype), iou, seen, *prior, granularity=granularity)
        assert torch.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()
        assert scores.dtype == torch.float32


def test_empty_group_leaves_the_other_as_it_is():
    """With all classes seen, `group` and `mask` are the same: there is only one group."""
    ldp, clip, iou = random_logits()
    seen = torch.ones(5)
    group, mask = (selective_ensemble(ldp, clip, iou, seen, granularity=g) for g in ("group", "mask"))
    assert torch.equal(group, mask)


def test_no_masks_and_one_class():
    """Q = 0 and C = 1: empty in, empty out; the only class has all that void leaves."""
    assert selective_ensemble(torch.zeros(0, 6), torch.zeros(0, 5), torch.zeros(0), SEEN).shape == (0, 6)
    scores = selective_ensemble(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0]]), torch.ones(1), torch.tensor([True]))
    torch.testing.assert_close(scores, torch.tensor([[0.5, 0.5]]))


def test_classes_may_come_in_any_order():
    """Permuting the classes permutes the scores."""
    ldp, clip, iou = random_logits()
    order = torch.tensor([4, 2, 0, 3, 1])
    permuted = selective_ensemble(ldp[:, [*order, 5]], clip[:, order], iou, SEEN[order])
    torch.testing.assert_close(permuted, selective_ensemble(ldp, clip, iou, SEEN)[:, [*order, 5]])


@pytest.mark.parametrize("bad", [{"alpha": 1.2}, {"beta": -0.1}, {"strength": -1.0}, {"granularity": "pixel"}])
def test_wrong_constants_are_named(bad):
    """Constructing with a value that makes no sense names it."""
    with pytest.raises(UserError, match=next(iter(bad))):
        SelectiveEnsemble(**bad)


def test_unknown_granularity_of_the_function():
    """The plain function refuses it as well."""
    with pytest.raises(UserError, match="pixel"):
        selective_ensemble(torch.zeros(1, 6), torch.zeros(1, 5), torch.ones(1), SEEN, granularity="pixel")


def test_module_passes_its_constants():
    """The module is the function with its constants, none of them lost."""
    ldp, clip, iou = random_logits()
    module = SelectiveEnsemble(alpha=0.1, beta=0.9, strength=math.pi, granularity="mask")
    assert torch.equal(
        module(ldp, clip, iou, SEEN), selective_ensemble(ldp, clip, iou, SEEN, 0.1, 0.9, math.pi, "mask")
    )
