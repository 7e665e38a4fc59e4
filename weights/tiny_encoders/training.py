"""What the two trainings share: how weights move, and the file they end in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sam_common.io.files import atomic_path


def build_optimizer(model: nn.Module, learning_rate: float, *, eps: float = 1e-8) -> torch.optim.AdamW:
    """AdamW, whose decay leaves norms and biases alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=eps)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of all parameters along the gradient of a loss, which is clipped to length 1."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def write(output: Path, state: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors and what they were taught with as one safetensors file, atomically."""
    with atomic_path(output) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary, metadata)


def metadata_of(file: Path) -> dict[str, str]:
    """What the tensors of such a file were taught with."""
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def in_words(scores: Mapping[str, float] | Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
