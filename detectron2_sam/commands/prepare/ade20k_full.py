"""ADE20K-847: smaller images and label maps from the official files.

The images are JPEGs of Pillow's quality, as MaskFormer's are, so that models see what others' saw.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detectron2_sam.commands.prepare.preparation import convert_images, exit_status, present_splits, tell_count
from possam.data.semantic_sets import FOLDERS, NUM_IMAGES
from sam_common.data.images import read_image
from sam_common.errors import UserError
from sam_common.io.resources import resource

OTHER = 65535
SHORTER_SIDE = 512
NUMBERS = 255 // 10 * 256 + 256
"""Numbers that a class can have in the official files, from 0."""


@dataclass(frozen=True)
class Split:
    """One split of the tree at `root` (ADE20K_2021_17_01)."""

    root: Path
    folder: str

    @property
    def images(self) -> Path:
        return self.root / "images" / "ADE" / self.folder

    def sources(self) -> list[Path]:
        """Its images, in the order of their names; they lie in a folder for each kind of scene."""
        return sorted(self.images.rglob("ADE_*.jpg"), key=lambda path: path.name)

    def targets(self, source: Path) -> tuple[Path, Path]:
        """Its smaller image and its label map."""
        image = self.root / "images_detectron2" / self.folder / source.name
        return image, self.root / "annotations_detectron2" / self.folder / f"{source.stem}.tif"


def class_indices() -> NDArray[np.uint16]:
    """[NUMBERS] number of a class in the official files -> its index, OTHER where it is none of the 847."""
    lines = resource("configs/vocabularies/ade20k_full_ids.txt").read_text(encoding="utf-8").splitlines()
    numbers = [int(line.split()[0]) for line in lines if not line.startswith("#")]
    index_of = np.full(NUMBERS, OTHER, np.uint16)
    index_of[numbers] = np.arange(len(numbers))
    return index_of


def read(source: Path, index_of: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Pixels [H, W, 3] and class indices [H, W], made smaller.

    Raises:
        UserError: a file is missing, damaged or of another size.
    """
    image = read_image(source).permute(1, 2, 0).contiguous().numpy()
    truth = source.with_name(f"{source.stem}_seg.png")
    red, green, _ = read_image(truth).numpy().astype(np.int64)
    if red.shape != image.shape[:2]:
        raise UserError(f"{truth} is not of the size of {source}")
    labels = index_of[red // 10 * 256 + green]
    size = smaller(image.shape[1], image.shape[0])
    if size != (image.shape[1], image.shape[0]):
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return image, labels


def smaller(width: int, height: int) -> tuple[int, int]:
    """The size of which the shorter side is SHORTER_SIDE at most."""
    shorter = min(width, height)
    if shorter <= SHORTER_SIDE:
        return width, height
    return round(width / shorter * SHORTER_SIDE), round(height / shorter * SHORTER_SIDE)


def prepare(split: Split, name: str, workers: int) -> list[str]:
    """Makes the files of a split; returns what was wrong with those that were skipped."""
    sources, index_of, title = split.sources(), class_indices(), f"ade20k_full {name}"
    tell_count(title, len(sources), NUM_IMAGES["ade20k_full"][name])
    return convert_images(title, sources, split.targets, lambda source: read(source, index_of), workers=workers)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    tree = args.root / "ADE20K_2021_17_01"
    splits = {name: Split(tree, FOLDERS[name]) for name in args.splits}
    present = present_splits("ade20k_full", {name: split.images for name, split in splits.items()})
    return exit_status([fault for name in present for fault in prepare(splits[name], name, args.workers)])
