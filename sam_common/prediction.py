"""The part of a run that depends on the kind of model."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from sam_common.errors import UserError
from sam_common.io.inputs import Input


@dataclass
class Found:
    """What a model found in one picture.

    Attributes:
        outputs: in the task's own form.
        picture: uint8 RGB [H, W, 3], drawn.
        summary: in words.
    """

    outputs: Any
    picture: np.ndarray
    summary: str


class Task(Protocol):
    """Looks at pictures and keeps what it found. Made before anything costs time, so that mistakes show at once."""

    name: str

    def written(self, source: Input) -> list[Path]:
        """The files that an input becomes, the picture or video first."""

    def load(self) -> None:
        """Builds the model."""

    def look(self, image: Tensor, source: Input) -> Found:
        """Raises UserError where this picture cannot be predicted; the others may still."""

    def add(self, number: int, source: Input, outputs: Any) -> None:
        """Writes or remembers what was found in the `number`-th input, an image."""

    def describe_video(self) -> dict[str, Any]:
        """What the first line of a video's results says beside the video itself."""

    def segments(self, outputs: Any) -> list[dict[str, Any]]:
        """What was found in a frame, as its line holds it."""

    def finish(self) -> None:
        """Writes the JSON of all images."""


def refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Raises UserError where an argument was given that this kind of model has no use for."""
    for name in names:
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} {why}")
