"""Work that a GPU may do beside other work: a second CUDA stream, and its results taken over by the first.

    with side_stream(device) as join:
        one = encode_one(images)
    other = encode_other(images)        # both run at once where the GPU has room for both
    one = join(one)                     # from here on in order again

What the work reads must exist before and until `join`. Untested on a GPU; elsewhere nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor


@contextmanager
def side_stream(device: torch.device) -> Iterator[Callable[[Tensor], Tensor]]:
    """What is asked of the GPU within starts after all that was asked before, and runs beside what is asked later.

    Yields:
        Takes a tensor that was computed within, to be called where it is first needed: the work that follows waits for
        it, and its memory is not given away before that work is done.
    """
    if device.type != "cuda":
        yield lambda tensor: tensor
        return
    current, side = torch.cuda.current_stream(device), _side(device)

    def join(tensor: Tensor) -> Tensor:
        current.wait_stream(side)
        tensor.record_stream(current)
        return tensor

    side.wait_stream(current)
    with torch.cuda.stream(side):
        yield join


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """One for each device: the memory of a stream is kept for that stream."""
    return torch.cuda.Stream(device)
