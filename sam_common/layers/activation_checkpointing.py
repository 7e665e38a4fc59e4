"""Activation checkpointing: a module forgets what it computed inside and computes it again in the backward pass.

Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174. Memory for time: of a module only the
inputs are kept, and its forward runs twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Makes these modules recompute their activations. Their names, parameters and results stay as they are.

    The call is wrapped, not the module: a wrapper module would change the names of parameters, and with them
    checkpoint files.

    Args:
        modules: each one draws no random numbers in its forward, since those would not be drawn again.
    """
    for module in modules:
        forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
        setattr(module, "forward", forward)  # noqa: B010 (a method, to mypy)
