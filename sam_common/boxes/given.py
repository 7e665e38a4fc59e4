"""The boxes that a command line gives: one by one, or in a file for many inputs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sam_common.boxes.box_files import read_box_file
from sam_common.boxes.boxes import Boxes, box_fault
from sam_common.boxes.detectors import Detector, build_detector
from sam_common.errors import UserError
from sam_common.io.inputs import Input
from sam_common.prediction import refuse
from sam_common.text import some, warn


class BoxPrompts:
    """What --box, --boxes or --detector of a command line says of each picture.

    Args:
        args: the command line.
        inputs: its pictures.
        needed: one of the three has to be there.

    Raises:
        UserError: they make no sense together, or the boxes cannot be read.
    """

    def __init__(self, args: argparse.Namespace, inputs: Sequence[Input], *, needed: bool = False) -> None:
        given = [f"--{name}" for name in ("boxes", "box", "detector") if getattr(args, name) is not None]
        if len(given) > 1 or (needed and not given):
            raise UserError(f"give one of --boxes, --box and --detector; this is {' and '.join(given) or 'none'}")
        if args.detector is None:
            refuse(args, ("detector_weights",), "belongs to --detector")
        self.args = args
        self.threshold = 0.5 if args.confidence_threshold is None else args.confidence_threshold
        self._given = torch.tensor([parse_box(text) for text in args.box]) if args.box else None
        self._of_file = assign(read_box_file(args.boxes), inputs, args.boxes) if args.boxes is not None else {}
        self._detect: Detector | None = None

    def load(self, device: torch.device) -> None:
        """Builds the detector, where one was named."""
        name, weights = self.args.detector, self.args.detector_weights or ""
        if name is not None:
            self._detect = build_detector(name, score_threshold=self.threshold, weights=weights, device=device)

    def __call__(self, image: Tensor, source: Input) -> Tensor | Boxes | None:
        """The boxes [n, 4] that were given, or those that were found; None where nothing says any."""
        if self._detect is not None:
            return self._detect(image)
        return self._given if self._given is not None else self._of_file.get(source.path)


def parse_box(text: str) -> list[float]:
    """ "x0,y0,x1,y1" as four numbers.

    Raises:
        UserError: it is something else, or no box.
    """
    try:
        x0, y0, x1, y1 = (float(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--box {text}: give four numbers x0,y0,x1,y1") from None
    if fault := box_fault((x0, y0, x1, y1)):
        raise UserError(f"--box {text}: the box {fault}")
    return [x0, y0, x1, y1]


def assign(found: dict[str, Boxes], inputs: Sequence[Input], path: str) -> dict[Path, Boxes]:
    """Which input the boxes of each name in a file are for; a warning names inputs and boxes that are left over.

    A name is the end of the input's path, its name without the suffix, or the number that this ends with, leading zeros
    left out, as in COCO's file names: image_id 42 is COCO_val2014_000000000042.jpg.

    Raises:
        UserError: a name fits two inputs, or none fits any.
    """
    taken: dict[str, Input] = {}
    for source in inputs:
        name = next((name for name in _names(source.path) if name in found), None)
        if name in taken:
            raise UserError(
                f"{path}: {name!r} fits both {taken[name].path} and {source.path}; give more of their paths"
            )
        if name is not None:
            taken[name] = source
    lost = [name for name in found if name not in taken]
    if not taken:
        raise UserError(f"{path} has boxes for {some(lost)}: none of these is among the inputs")
    if lost:
        warn(f"{path} has boxes for images that are not among the inputs: {some(lost)}")
    done = {source.path for source in taken.values()}
    if bare := [source.relative for source in inputs if source.path not in done]:
        warn(f"{path} has no boxes for {some(bare)}")
    return {source.path: found[name] for name, source in taken.items()}


def _names(path: Path) -> Iterator[str]:
    yield path.as_posix()
    yield from ("/".join(path.parts[start:]) for start in range(1, len(path.parts)))
    yield path.stem
    if number := re.search(r"\d+$", path.stem):
        yield str(int(number[0]))
