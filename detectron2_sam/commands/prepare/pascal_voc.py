"""PASCAL VOC 2012: label maps with and without the background from the official files."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectron2_sam.commands.prepare.preparation import (
    convert_images,
    exit_status,
    present_splits,
    read_names,
    tell_count,
)
from possam.data.semantic_sets import FOLDERS, NUM_IMAGES
from sam_common.data.images import read_class_indices, upright_size
from sam_common.errors import UserError

BACKGROUND, LAST, VOID = 0, 20, 255


def read(voc: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class indices [H, W] with and without the background; UserError where a file is missing, damaged or contradicts
    its image."""
    image, truth = voc / "JPEGImages" / f"{name}.jpg", voc / "SegmentationClass" / f"{name}.png"
    labels = read_class_indices(truth).numpy()
    if labels.shape != upright_size(image):
        raise UserError(f"{truth} is not of the size of {image}")
    strange = labels[(labels > LAST) & (labels != VOID)]
    if strange.size:
        raise UserError(f"{truth} holds the class {strange.max()}, above {LAST}")
    of_20 = np.where(np.isin(labels, (BACKGROUND, VOID)), VOID, labels - 1)
    return labels.astype(np.uint8), of_20.astype(np.uint8)


def prepare(root: Path, split: str, workers: int) -> list[str]:
    """Makes the label maps of a split; returns what was wrong with the files that were skipped."""
    voc, annotations, title = root / "VOCdevkit/VOC2012", root / "pascal_voc_d2", f"pascal_voc {split}"
    names = read_names(voc / "ImageSets/Segmentation" / f"{split}.txt")
    tell_count(title, len(names), NUM_IMAGES["pascal_voc"][split])

    def targets(name: str) -> list[Path]:
        return [annotations / f"annotations_pascal{count}" / FOLDERS[split] / f"{name}.png" for count in (21, 20)]

    return convert_images(title, names, targets, lambda name: read(voc, name), workers=workers)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    lists = {split: args.root / "VOCdevkit/VOC2012/ImageSets/Segmentation" / f"{split}.txt" for split in FOLDERS}
    present = present_splits("pascal_voc", lists)
    return exit_status([fault for split in present for fault in prepare(args.root, split, args.workers)])
