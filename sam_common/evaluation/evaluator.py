"""What an evaluator is, under either engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from torch import distributed

T = TypeVar("T")

Results = dict[str, dict[str, float]]


class Evaluator(Protocol):
    """Judges predictions image by image; every rank feeds its own images."""

    def reset(self) -> None:
        """Forgets everything seen so far."""

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Takes in a batch: the model's inputs and, in the same order, its outputs."""

    def evaluate(self) -> Results:
        """The results over the images of all ranks, `{task: {metric: value}}`, the same on every rank."""


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order, on every rank; without distributed training the one there is."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def is_main_process() -> bool:
    """Whether this is rank 0, the one that writes."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
