"""Uncertainty map: where a mask is doubtful, as its local mean entropy.

PLUG, Eq. 6-8. With the probability p = σ(ℓ) of a mask's logit ℓ,

    H(ℓ)    = -p log p - (1 - p) log(1 - p) = softplus(ℓ) - ℓ p
    u(x, y) = 1 / (2ε - 1)² · Σ H(x + Δx, y + Δy)    over |Δx|, |Δy| < ε, with H = 0 outside the map

    ℓ -> mask_logits    ε -> epsilon = 3, so the window is 5 × 5 and the divisor 25
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def entropy(mask_logits: Tensor) -> Tensor:
    """Binary entropy in nats of logits of any shape, in [0, log 2]; finite for any finite logit."""
    return F.softplus(mask_logits) - mask_logits * mask_logits.sigmoid()


def uncertainty(mask_logits: Tensor, *, epsilon: int = 3) -> Tensor:
    """Mean entropy around each pixel: [B, 1, H, W] logits -> [B, 1, H, W] in [0, log 2]."""
    return F.avg_pool2d(entropy(mask_logits), 2 * epsilon - 1, stride=1, padding=epsilon - 1, count_include_pad=True)
