"""Mask-Aware Selective Ensembling (MASE): which of two classifiers to trust, decided for every mask and class group.

PosSAM: Panoptic Open-vocabulary Segment Anything, arXiv 2403.09620, Section 3.4 and Algorithm 1. [ours] The algorithm's
listing is not in the text we have; this is a reconstruction that contains the usual fixed geometric ensemble as τ = 0.

    1. l_L = log_softmax(z_ldp[:, :C]);  l_C = log_softmax(z_clip);  v = softmax(z_ldp)[void]
    2. for g in {seen, unseen}:  L_g = max over g of l_L;  C_g = max over g of l_C          (per mask)
    3. a_seen = α, a_unseen = β;  w_g = sigmoid(logit(a_g) + τ (C_g - L_g))
    4. r = (1 - w_g(c)) l_L + w_g(c) l_C;  P = softmax(r)
    5. score[:, c] = p_iou (1 - v) P_c;  score[:, void] = v

Symbols: z_ldp `ldp_logits`, the trained classifier on LDP's embeddings, void last; z_clip `clip_logits`, frozen CLIP on
its own mask-pooled features; p_iou `iou`, the predicted mask quality; α, β `alpha`, `beta`; τ `strength`; w `weights`.
The mask quality is applied after the softmax of step 4, which would cancel any factor a whole mask shares.

The other ensembles replace steps 1-4 alone and share step 5 [ours]: comparing them compares the ensembling only.
Shapes: ... any leading dimensions, Q masks, C classes.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sam_common.errors import UserError

Granularity = Literal["group", "mask", "element"]

ALPHA, BETA = 0.4, 0.8
"""CLIP's weight for seen and for unseen classes, as published."""


def selective_ensemble(
    ldp_logits: Tensor,
    clip_logits: Tensor,
    iou: Tensor,
    seen: Tensor,
    alpha: float = ALPHA,
    beta: float = BETA,
    strength: float = 1.0,
    granularity: Granularity = "group",
) -> Tensor:
    """Final scores of every mask from both classifiers. They are used as they are: no softmax follows.

    Args:
        ldp_logits: [..., Q, C+1] logits of the trained classifier, void last.
        clip_logits: [..., Q, C] logits of frozen CLIP, its own temperature already applied.
        iou: [..., Q] predicted mask quality in [0, 1].
        seen: [C] bool (or 0 and 1), the classes that were in the training vocabulary; may be all or none.
        alpha: CLIP's weight for seen classes in [0, 1], where both classifiers are equally confident.
        beta: the same for unseen classes.
        strength: τ ≥ 0, how far confidence moves the weights; 0 is the fixed geometric ensemble.
        granularity: what confidence is compared over, see `ensemble_weights`.

    Returns:
        [..., Q, C+1] float32 scores in [0, 1]; a row sums to iou (1 - v) + v, where v is its last entry (void).
    """
    ldp_log_probs = ldp_logits[..., :-1].float().log_softmax(dim=-1)
    clip_log_probs = clip_logits.float().log_softmax(dim=-1)
    weights = ensemble_weights(ldp_log_probs, clip_log_probs, seen, alpha, beta, strength, granularity)
    combined = (1 - weights) * ldp_log_probs + weights * clip_log_probs
    return _scores(combined.softmax(dim=-1), ldp_logits, iou)


def ensemble_weights(
    ldp_log_probs: Tensor,
    clip_log_probs: Tensor,
    seen: Tensor,
    alpha: float,
    beta: float,
    strength: float,
    granularity: Granularity = "group",
) -> Tensor:
    """Steps 2 and 3: CLIP's weight for every mask and class.

    Args:
        ldp_log_probs, clip_log_probs: [..., Q, C] log-probabilities over the classes without void.
        seen, alpha, beta, strength: as in `selective_ensemble`.
        granularity: `group` compares the classifiers' best log-probabilities among the seen classes, and among the
            unseen ones; `mask` their best among all classes; `element` their log-probabilities of each class.

    Returns:
        [..., Q, C] weights in [0, 1] (`mask` and `group` repeat a value over the classes it belongs to).

    Raises:
        UserError: `granularity` is none of the three.
    """
    seen = seen.bool()
    if granularity == "element":
        advantage = clip_log_probs - ldp_log_probs
    elif granularity == "mask":
        advantage = clip_log_probs.amax(-1, keepdim=True) - ldp_log_probs.amax(-1, keepdim=True)
    elif granularity == "group":
        advantage_seen = _group_max(clip_log_probs, seen) - _group_max(ldp_log_probs, seen)
        advantage_unseen = _group_max(clip_log_probs, ~seen) - _group_max(ldp_log_probs, ~seen)
        advantage = torch.where(seen, advantage_seen, advantage_unseen)
    else:
        raise UserError(f"the ensemble's granularity is one of {', '.join(get_args(Granularity))}, got {granularity!r}")
    prior = torch.where(seen, alpha, beta).to(advantage)  # a_g
    return torch.sigmoid(torch.logit(prior) + strength * advantage)


def _group_max(log_probs: Tensor, group: Tensor) -> Tensor:
    """[..., Q, 1] best log-probability in a group; of an empty one a finite constant, so both classifiers are equal."""
    return log_probs.masked_fill(~group, torch.finfo(log_probs.dtype).min).amax(-1, keepdim=True)


def _scores(class_probs: Tensor, ldp_logits: Tensor, iou: Tensor) -> Tensor:
    """Step 5: [..., Q, C] class probabilities, void and mask quality as [..., Q, C+1] scores."""
    void = ldp_logits.float().softmax(dim=-1)[..., -1:]
    return torch.cat([iou.float().unsqueeze(-1) * (1 - void) * class_probs, void], dim=-1)


class SelectiveEnsemble(nn.Module):
    """`ENSEMBLE mase`: `selective_ensemble` with its constants.

    Raises:
        UserError: alpha or beta outside [0, 1], a negative strength, or an unknown granularity.
    """

    def __init__(
        self, *, alpha: float = ALPHA, beta: float = BETA, strength: float = 1.0, granularity: Granularity = "group"
    ) -> None:
        super().__init__()
        if not (0 <= alpha <= 1 and 0 <= beta <= 1):
            raise UserError(f"the ensemble's alpha and beta are in [0, 1], got {alpha} and {beta}")
        if strength < 0:
            raise UserError(f"the ensemble's strength is not negative, got {strength}")
        if granularity not in get_args(Granularity):
            raise UserError(
                f"the ensemble's granularity is one of {', '.join(get_args(Granularity))}, got {granularity!r}"
            )
        self.alpha = alpha
        self.beta = beta
        self.strength = strength
        self.granularity = granularity

    def forward(self, ldp_logits: Tensor, clip_logits: Tensor, iou: Tensor, seen: Tensor) -> Tensor:
        return selective_ensemble(
            ldp_logits, clip_logits, iou, seen, self.alpha, self.beta, self.strength, self.granularity
        )


class GeometricEnsemble(SelectiveEnsemble):
    """`ENSEMBLE geometric`: τ = 0, so P ∝ p_ldp^(1-a) p_clip^a with a = α for seen and β for unseen classes."""

    def __init__(self, *, alpha: float = ALPHA, beta: float = BETA) -> None:
        super().__init__(alpha=alpha, beta=beta, strength=0.0)


class LdpOnly(nn.Module):
    """`ENSEMBLE ldp`: the trained classifier alone."""

    def forward(self, ldp_logits: Tensor, clip_logits: Tensor, iou: Tensor, seen: Tensor) -> Tensor:
        return _scores(ldp_logits[..., :-1].float().softmax(dim=-1), ldp_logits, iou)


class ClipOnly(nn.Module):
    """`ENSEMBLE clip`: frozen CLIP alone. CLIP knows no void, so void is the trained classifier's."""

    def forward(self, ldp_logits: Tensor, clip_logits: Tensor, iou: Tensor, seen: Tensor) -> Tensor:
        return _scores(clip_logits.float().softmax(dim=-1), ldp_logits, iou)
