"""PASCAL-Context: label maps with 459 and with 59 classes from the official files."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from detectron2_sam.commands.prepare.preparation import (
    convert_images,
    exit_status,
    present_splits,
    read_names,
    tell_count,
)
from possam.data.semantic_sets import FOLDERS, NUM_IMAGES
from sam_common.data.images import upright_size
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.io.resources import resource

NONE_OF_459, NONE_OF_59 = 65535, 255


def frequent_classes() -> NDArray[np.uint8]:
    """[460] number of a class, counted from 1 -> its index among the 59, NONE_OF_59 where it is none; 0 is no class."""
    all_names, names = (
        [category.name for category in parse_vocabulary(resource(f"configs/vocabularies/pascal_context{count}.txt"))]
        for count in (459, 59)
    )
    index_of = np.full(len(all_names) + 1, NONE_OF_59, np.uint8)
    index_of[[all_names.index(name) + 1 for name in names]] = np.arange(len(names))
    return index_of


def read(voc: Path, name: str) -> NDArray[np.uint16]:
    """Numbers of classes [H, W], 0 where there is none; UserError where a file is missing, damaged or contradicts."""
    image, truth = voc / "JPEGImages" / f"{name}.jpg", voc / "trainval" / f"{name}.mat"
    if not truth.is_file():
        raise UserError(f"there is no {truth}")
    try:
        numbers = scipy.io.loadmat(truth)["LabelMap"]
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{truth} cannot be read as PASCAL-Context's LabelMap: {' '.join(str(error).split())}"
        ) from error
    if numbers.dtype.kind not in "ui" or numbers.shape != upright_size(image):
        raise UserError(
            f"{truth}: LabelMap is {numbers.dtype} {numbers.shape}, not whole numbers of the size of {image}"
        )
    strange = numbers[(numbers < 0) | (numbers > 459)]
    if strange.size:
        raise UserError(f"{truth} holds the class {strange[0]}, not one of 0..459")
    return numbers.astype(np.uint16)


def prepare(root: Path, split: str, workers: int) -> list[str]:
    """Makes the label maps of a split; returns what was wrong with the files that were skipped."""
    voc, annotations, title = root / "VOCdevkit/VOC2010", root / "pascal_ctx_d2", f"pascal_context {split}"
    names, frequent = read_names(voc / "ImageSets/Main" / f"{split}.txt"), frequent_classes()
    tell_count(title, len(names), NUM_IMAGES["pascal_context"][split])

    def targets(name: str) -> list[Path]:
        files = f"annotations_ctx459/{FOLDERS[split]}/{name}.tif", f"annotations_ctx59/{FOLDERS[split]}/{name}.png"
        return [annotations / file for file in files]

    def maps(name: str) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        numbers = read(voc, name)
        return np.where(numbers > 0, numbers - 1, NONE_OF_459).astype(np.uint16), frequent[numbers]

    return convert_images(title, names, targets, maps, workers=workers)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    lists = {split: args.root / "VOCdevkit/VOC2010/ImageSets/Main" / f"{split}.txt" for split in FOLDERS}
    present = present_splits("pascal_context", lists)
    return exit_status([fault for split in present for fault in prepare(args.root, split, args.workers)])
