"""The generated data sets, panoptic, amodal and few-shot."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron2_sam.methods import methods
from sam_common.data.generated.specs import draw_scenes


def prepare(root: Path, *, train: int, test: int, seed: int = 0, size: int = 256, workers: int = 2) -> None:
    """Draws the scenes (see `draw_scenes`) and what each method adds to them."""
    splits = draw_scenes(root, train=train, test=test, seed=seed, size=size, workers=workers)
    for method in methods():
        method.add_to_world(splits)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    prepare(args.root, train=args.train, test=args.test, seed=args.seed, size=args.size, workers=args.workers)
    return 0
