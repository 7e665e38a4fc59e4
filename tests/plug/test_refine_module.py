"""The refine module."""

from __future__ import annotations

import pytest
import torch

from plug.refine_module import RefineModule


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_it_has_the_papers_parameters() -> None:
    """157,313 for two branches, which the paper's totals leave for it; one branch has two channels less."""
    assert count(RefineModule()) == 157_313
    assert count(RefineModule(1)) == 157_313 - 2 * (9 * 128 + 128)


@pytest.mark.parametrize("branches", [1, 2])
def test_it_keeps_the_size_and_uses_everything(branches: int) -> None:
    """Logits of the images' size; image, masks and uncertainty all reach them, through more than one block too."""
    module = RefineModule(branches, width=8, num_blocks=2)
    inputs = [torch.randn(2, channels, 12, 16, requires_grad=True) for channels in (3, branches, branches)]
    refined = module(*inputs)
    assert refined.shape == (2, 1, 12, 16)
    refined.sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in inputs)
