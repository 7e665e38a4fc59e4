"""LoRA on one linear layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from amsam.lora import LoraLinear


@pytest.mark.parametrize("bias", [True, False])
def test_it_begins_as_the_layer_it_is_made_of(bias: bool) -> None:
    """With B = 0 the same outputs; only A and B train; the layer's state fits by its own names."""
    linear = nn.Linear(6, 5, bias=bias)
    expected, state = linear(torch.eye(6)), dict(linear.state_dict())
    lora = LoraLinear(linear, rank=2)
    assert torch.equal(lora(torch.eye(6)), expected)
    assert {name for name, p in lora.named_parameters() if p.requires_grad} == {"down", "up"}
    missing, unexpected = lora.load_state_dict(state, strict=False)
    assert set(missing) == {"down", "up"} and not unexpected


def test_its_outputs_are_those_of_the_formula() -> None:
    """(W + B A) x + b."""
    lora = LoraLinear(nn.Linear(6, 5), rank=2)
    nn.init.normal_(lora.up)
    x = torch.randn(3, 6)
    torch.testing.assert_close(lora(x), F.linear(x, lora.weight + lora.up @ lora.down, lora.bias))
