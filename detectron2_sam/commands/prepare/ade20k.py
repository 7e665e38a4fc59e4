"""ADE20K-150: panoptic, instance and semantic forms from the official files."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detectron2_sam.commands.prepare.preparation import convert_all, exit_status, present_splits, write_image
from possam.data.semantic_sets import FOLDERS
from sam_common.data.images import read_class_indices, read_image, write_segment_ids
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.io.files import write_text
from sam_common.io.resources import resource
from sam_common.masks.rle import area_and_box, encode_mask
from sam_common.structures import Vocabulary

OTHER = 255

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One split of the tree at `root` (ADEChallengeData2016)."""

    root: Path
    name: str
    folder: str
    classes: Vocabulary
    semantic_only: bool

    def source(self, kind: str, stem: str) -> Path:
        return self.root / kind / self.folder / f"{stem}.png"

    def image(self, stem: str) -> Path:
        return self.root / "images" / self.folder / f"{stem}.jpg"

    def panoptic_png(self, stem: str) -> Path:
        return self.root / f"ade20k_panoptic_{self.name}" / f"{stem}.png"

    def label_map(self, stem: str) -> Path:
        return self.root / "annotations_detectron2" / self.folder / f"{stem}.png"

    def json(self, form: str) -> Path:
        return self.root / f"ade20k_{form}_{self.name}.json"

    def stems(self) -> list[str]:
        """The names of its images, without extension."""
        return sorted(path.stem for path in self.image("").parent.glob("*.jpg"))


@dataclass(frozen=True)
class Entry:
    """What the two JSON files say of one image."""

    stem: str
    size: tuple[int, int]
    segments: list[dict[str, Any]]
    instances: list[dict[str, Any]]


Content = tuple[Entry, IntArray, IntArray]
"""Of one image: its entry, its class indices [H, W], -1 where none, and its segment ids [H, W], 0 where none."""


def read(split: Split, stem: str) -> Content:
    """The annotation of one image; UserError where one of its files is missing, damaged or contradicts another."""
    image = split.image(stem)
    height, width = read_image(image).shape[-2:]
    semantic_file = split.source("annotations", stem)
    labels = read_class_indices(semantic_file).numpy() - 1
    _check(labels.shape == (height, width), semantic_file, f"is not of the size of {image}")
    _check(labels.max() < len(split.classes), semantic_file, f"holds the class {labels.max() + 1}, above 150")
    things = {} if split.semantic_only else _instances(split, stem, (height, width))
    ids = np.zeros((height, width), np.int64)
    category_of: dict[int, int] = {}
    count: Counter[int] = Counter()

    def paste(category: int, mask: NDArray[np.bool_]) -> None:
        segment_id = category + 1 + 256 * count[category]
        count[category] += 1
        ids[mask], category_of[segment_id] = segment_id, category

    for category in np.unique(labels):
        if category >= 0 and not split.classes[category].is_thing:
            paste(int(category), labels == category)
    for category, mask in things.values():
        paste(category, mask)
    segments = [
        {"id": segment_id, "category_id": category_of[segment_id], **area_and_box(ids == segment_id), "iscrowd": 0}
        for segment_id in np.unique(ids[ids > 0]).tolist()
    ]
    instances = [
        {"category_id": category, **area_and_box(mask), "segmentation": encode_mask(mask), "iscrowd": 0}
        for category, mask in things.values()
    ]
    return Entry(stem, (height, width), segments, instances), labels, ids


def _instances(split: Split, stem: str, size: tuple[int, int]) -> dict[int, tuple[int, NDArray[np.bool_]]]:
    """Number of the instance -> its class index and mask. Thing k of 1..100 is the k-th thing of the 150 classes."""
    path = split.source("annotations_instance", stem)
    things = [index for index, category in enumerate(split.classes) if category.is_thing]
    pixels = read_image(path).numpy()
    _check(pixels.shape[1:] == size, path, "is not of the size of its image")
    thing, number = pixels[0], pixels[1]
    found = {}
    for instance in np.unique(number[number > 0]).tolist():
        mask = number == instance
        values = np.unique(thing[mask])
        _check(len(values) == 1, path, f"gives instance {instance} the classes {values.tolist()}")
        _check(1 <= values[0] <= len(things), path, f"gives instance {instance} the class {values[0]}, not of 1..100")
        found[instance] = things[values[0] - 1], mask
    return found


def _check(holds: bool | np.bool_, path: Path, what: str) -> None:
    if not holds:
        raise UserError(f"{path} {what}")


def write(split: Split, content: Content) -> Entry:
    """Writes the two PNGs of one image, where they are not there yet."""
    entry, labels, ids = content
    write_image(split.label_map(entry.stem), np.where(labels < 0, OTHER, labels).astype(np.uint8))
    png = split.panoptic_png(entry.stem)
    if not split.semantic_only and not png.is_file():
        write_segment_ids(png, torch.from_numpy(ids))
    return entry


def write_json(split: Split, images: list[Entry]) -> None:
    """The two JSON files of a split."""
    entries = [
        {"id": c.stem, "file_name": split.image(c.stem).name, "height": c.size[0], "width": c.size[1]} for c in images
    ]
    categories = [
        {"id": index, "name": category.name, "synonyms": list(category.synonyms), "isthing": int(category.is_thing)}
        for index, category in enumerate(split.classes)
    ]
    panoptic = [{"image_id": c.stem, "file_name": f"{c.stem}.png", "segments_info": c.segments} for c in images]
    instances = [{"image_id": c.stem, **instance} for c in images for instance in c.instances]
    numbered = [{"id": number, **instance} for number, instance in enumerate(instances, start=1)]
    content = {"images": entries, "annotations": panoptic, "categories": categories}
    write_text(split.json("panoptic"), json.dumps(content))
    things = [category for category in categories if category["isthing"]]
    content = {"images": entries, "annotations": numbered, "categories": things}
    write_text(split.json("instance"), json.dumps(content))


def is_complete(split: Split, stems: list[str]) -> bool:
    """Whether an earlier run came to its end and passed nothing by. The instances' JSON is its last file."""
    files = [split.label_map(stem) for stem in stems]
    if not split.semantic_only:
        files += [split.panoptic_png(stem) for stem in stems]
        try:
            images = json.loads(split.json("instance").read_bytes())["images"]
        except (OSError, ValueError, KeyError):
            return False
        if [image["id"] for image in images] != stems or not split.json("panoptic").is_file():
            return False
    return all(file.is_file() for file in files)


def prepare(split: Split, workers: int) -> list[str]:
    """Makes all forms of a split; returns what was wrong with the files that were skipped."""
    stems = split.stems()
    if is_complete(split, stems):
        print(f"ade20k {split.name}: all {len(stems)} images are prepared already")
        return []
    if not split.semantic_only and not split.source("annotations_instance", "").parent.is_dir():
        raise UserError(
            f"there is no {split.source('annotations_instance', '').parent}; unpack annotations_instance.tar there, "
            "or give --semantic-only"
        )
    images, broken = convert_all(
        stems,
        lambda stem: read(split, stem),
        lambda content: write(split, content),
        title=f"ade20k {split.name}",
        workers=workers,
    )
    if not split.semantic_only:
        write_json(split, images)
    return broken


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    classes = parse_vocabulary(resource("configs/vocabularies/ade20k.txt"))
    tree = args.root / "ADEChallengeData2016"
    present = present_splits("ade20k", {name: tree / "images" / folder for name, folder in FOLDERS.items()})
    splits = [Split(tree, name, FOLDERS[name], classes, args.semantic_only) for name in present]
    return exit_status([fault for split in splits for fault in prepare(split, args.workers)])
