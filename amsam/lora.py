"""LoRA: low-rank changes of a frozen linear layer (Hu et al., arXiv 2106.09685).

y = W x + b + B A x        A [rank, in] is drawn like a linear layer's weight (Kaiming), B [out, rank] starts at zero

W, b -> weight, bias    A -> down    B -> up
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoraLinear(nn.Linear):
    """A linear layer that is frozen but for its low-rank change; at first it is the layer it is made of.

    Its `weight` and `bias` keep their names, so checkpoints of the plain model fit.

    Args:
        linear: the pretrained layer, whose weight and bias it takes over.
        rank: of the change.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        with torch.device("meta"):  # nothing is allocated for what is replaced
            super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias = linear.weight.requires_grad_(False), linear.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.down = nn.Parameter(self.weight.new_empty(rank, linear.in_features))
        self.up = nn.Parameter(self.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.linear(F.linear(x, self.down), self.up)
