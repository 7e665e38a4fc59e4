"""The processes of a run: which of them this is, and what they gather and count together."""

from __future__ import annotations

from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank_and_size() -> tuple[int, int]:
    """The number of this process, and of how many; 0 and 1 without distributed training."""
    return (dist.get_rank(), dist.get_world_size()) if _are_several() else (0, 1)


def is_main_process() -> bool:
    """Whether this is rank 0, the one that writes."""
    return rank_and_size()[0] == 0


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order, on every rank; without distributed training the one there is."""
    _, size = rank_and_size()
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    return values


def mean_over_processes(counts: Tensor) -> Tensor:
    """The mean of what each process counts; all of them must call it.

    DDP averages gradients over the processes. So a loss that is a mean over everything in an iteration is, in each
    process, its own sum divided by the mean number of things in a process.
    """
    if not _are_several():
        return counts
    total = counts.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized()
