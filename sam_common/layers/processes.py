"""What the processes of a run count together."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_processes(counts: Tensor) -> Tensor:
    """The mean of what each process counts; all of them must call it.

    DDP averages gradients over the processes. So a loss that is a mean over everything in an iteration is, in each
    process, its own sum divided by the mean number of things in a process.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return counts
    total = counts.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
