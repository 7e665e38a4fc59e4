"""Makes the generated data sets: `generated_train_*` (seen classes) and `generated_test_*` (all), panoptic and amodal.

    python datasets/prepare_generated.py --train 2000 --test 200

They are written to ROOT/generated in the COCO panoptic format and in KINS's, about 0.1 MB a scene. What is
there already, complete and with the same parameters, is kept; an interrupted run is simply started again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2_sam.methods import methods
from sam_common.data.generated import draw_scenes


def prepare(root: Path, *, train: int, test: int, seed: int = 0, size: int = 256, workers: int = 2) -> None:
    """Draws the scenes (see `draw_scenes`) and what each method adds to them."""
    splits = draw_scenes(root, train=train, test=test, seed=seed, size=size, workers=workers)
    for method in methods():
        method.add_to_world(splits)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("DETECTRON2_DATASETS", "datasets")
    parser.add_argument("--root", type=Path, default=Path(root), help="default: $DETECTRON2_DATASETS or ./datasets")
    parser.add_argument("--train", type=int, default=2000, help="training scenes (2000)")
    parser.add_argument("--test", type=int, default=200, help="test scenes (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the world (0)")
    parser.add_argument("--size", type=int, default=256, help="side of a picture in pixels (256)")
    parser.add_argument("--workers", type=int, default=2, help="threads (2)")
    arguments = parser.parse_args(argv)
    prepare(
        arguments.root.expanduser(),
        train=arguments.train,
        test=arguments.test,
        seed=arguments.seed,
        size=arguments.size,
        workers=arguments.workers,
    )
    return 0
