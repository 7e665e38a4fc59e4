"""PASCAL-Context: label maps with 459 and with 59 classes from the official files."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray

from detectron2_sam.commands.prepare.preparation import (
    convert_all,
    exit_status,
    read_names,
    tell_count,
    write_label_map,
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
    voc, annotations, frequent = root / "VOCdevkit/VOC2010", root / "pascal_ctx_d2", frequent_classes()
    names = read_names(voc / "ImageSets/Main" / f"{split}.txt")
    tell_count(f"pascal_context {split}", len(names), NUM_IMAGES["pascal_context"][split])

    def targets(name: str) -> tuple[Path, Path]:
        folder = FOLDERS[split]
        return (
            annotations / f"annotations_ctx459/{folder}/{name}.tif",
            annotations / f"annotations_ctx59/{folder}/{name}.png",
        )

    def write(content: tuple[str, NDArray[np.uint16]]) -> None:
        name, numbers = content
        of_459, of_59 = targets(name)
        write_label_map(of_459, np.where(numbers > 0, numbers - 1, NONE_OF_459).astype(np.uint16))
        write_label_map(of_59, frequent[numbers])

    _, broken = convert_all(
        [name for name in names if not all(path.is_file() for path in targets(name))],
        lambda name: (name, read(voc, name)),
        write,
        title=f"pascal_context {split}",
        workers=workers,
    )
    return broken


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    return exit_status([fault for split in FOLDERS for fault in prepare(args.root, split, args.workers)])
