"""PASCAL VOC 2012: label maps with and without the background from the official files."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectron2_sam.commands.prepare.preparation import (
    convert_all,
    exit_status,
    read_names,
    tell_count,
    write_label_map,
)
from possam.data.semantic_sets import FOLDERS, NUM_IMAGES
from sam_common.data.images import read_class_indices, upright_size
from sam_common.errors import UserError

BACKGROUND, LAST, VOID = 0, 20, 255


def read(voc: Path, name: str) -> NDArray[np.uint8]:
    """Class indices [H, W]; UserError where a file is missing, damaged or contradicts its image."""
    image, truth = voc / "JPEGImages" / f"{name}.jpg", voc / "SegmentationClass" / f"{name}.png"
    labels = read_class_indices(truth).numpy()
    if labels.shape != upright_size(image):
        raise UserError(f"{truth} is not of the size of {image}")
    strange = labels[(labels > LAST) & (labels != VOID)]
    if strange.size:
        raise UserError(f"{truth} holds the class {strange.max()}, above {LAST}")
    return labels.astype(np.uint8)


def prepare(root: Path, split: str, workers: int) -> list[str]:
    """Makes the label maps of a split; returns what was wrong with the files that were skipped."""
    voc, annotations = root / "VOCdevkit/VOC2012", root / "pascal_voc_d2"
    names = read_names(voc / "ImageSets/Segmentation" / f"{split}.txt")
    tell_count(f"pascal_voc {split}", len(names), NUM_IMAGES["pascal_voc"][split])

    def targets(name: str) -> list[Path]:
        return [annotations / f"annotations_pascal{count}" / FOLDERS[split] / f"{name}.png" for count in (21, 20)]

    def write(content: tuple[str, NDArray[np.uint8]]) -> None:
        name, labels = content
        of_21, of_20 = targets(name)
        write_label_map(of_21, labels)
        write_label_map(of_20, np.where(np.isin(labels, (BACKGROUND, VOID)), VOID, labels - 1).astype(np.uint8))

    _, broken = convert_all(
        [name for name in names if not all(path.is_file() for path in targets(name))],
        lambda name: (name, read(voc, name)),
        write,
        title=f"pascal_voc {split}",
        workers=workers,
    )
    return broken


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    return exit_status([fault for split in FOLDERS for fault in prepare(args.root, split, args.workers)])
