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
from PIL import Image

from detectron2_sam.commands.prepare.preparation import convert_all, exit_status, tell_count, write_label_map
from possam.data.semantic_sets import FOLDERS, NUM_IMAGES
from sam_common.data.images import read_image
from sam_common.errors import UserError
from sam_common.io.files import atomic_path
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

    def sources(self) -> list[Path]:
        """Its images, in the order of their names; they lie in a folder for each kind of scene."""
        folder = self.root / "images" / "ADE" / self.folder
        found = sorted(folder.rglob("ADE_*.jpg"), key=lambda path: path.name)
        if not found:
            raise UserError(f"there are no images in {folder}; see detectron2-sam prepare ade20k_full --help")
        return found

    def image(self, source: Path) -> Path:
        return self.root / "images_detectron2" / self.folder / source.name

    def label_map(self, source: Path) -> Path:
        return self.root / "annotations_detectron2" / self.folder / f"{source.stem}.tif"


def class_indices() -> NDArray[np.uint16]:
    """[NUMBERS] number of a class in the official files -> its index, OTHER where it is none of the 847."""
    lines = resource("configs/vocabularies/ade20k_full_ids.txt").read_text(encoding="utf-8").splitlines()
    numbers = [int(line.split()[0]) for line in lines if not line.startswith("#")]
    index_of = np.full(NUMBERS, OTHER, np.uint16)
    index_of[numbers] = np.arange(len(numbers))
    return index_of


Content = tuple[Path, NDArray[np.uint8], NDArray[np.uint16]]
"""Of one image: its source, its pixels [H, W, 3], its class indices [H, W]."""


def read(source: Path, index_of: NDArray[np.uint16]) -> Content:
    """One image and its truth, made smaller; UserError where a file is missing, damaged or of another size."""
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
    return source, image, labels


def smaller(width: int, height: int) -> tuple[int, int]:
    """The size of which the shorter side is SHORTER_SIDE at most."""
    shorter = min(width, height)
    if shorter <= SHORTER_SIDE:
        return width, height
    return round(width / shorter * SHORTER_SIDE), round(height / shorter * SHORTER_SIDE)


def write(split: Split, content: Content) -> None:
    """Writes the two files of one image, where they are not there yet; the label map is the last."""
    source, image, labels = content
    if not split.image(source).is_file():
        with atomic_path(split.image(source)) as temporary:
            Image.fromarray(image).save(temporary)
    write_label_map(split.label_map(source), labels)


def prepare(split: Split, name: str, workers: int) -> list[str]:
    """Makes the files of a split; returns what was wrong with those that were skipped."""
    sources, index_of = split.sources(), class_indices()
    tell_count(f"ade20k_full {name}", len(sources), NUM_IMAGES["ade20k_full"][name])
    _, broken = convert_all(
        [source for source in sources if not (split.image(source).is_file() and split.label_map(source).is_file())],
        lambda source: read(source, index_of),
        lambda content: write(split, content),
        title=f"ade20k_full {name}",
        workers=workers,
    )
    return broken


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    tree = args.root / "ADE20K_2021_17_01"
    broken = []
    for name in args.splits:
        broken += prepare(Split(tree, FOLDERS[name]), name, args.workers)
    return exit_status(broken)
