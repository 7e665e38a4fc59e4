"""Reader of the simplest data set there is: a folder of images and a folder of masks with the same names.

`images/a.jpg` belongs to `masks/a.png`; extensions are free. A mask is an image of one channel: 0 is the background,
and of one class any single other value of 1 and 255 is the object; of K classes the values 1 … K are the classes, and
255 marks pixels that nothing is said about. A mask may be smaller or larger than its image, as those of some published
data sets are; its shape must be the image's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_class_indices, upright_size
from sam_common.data.label_maps import files_by_stem
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.structures import Category, Vocabulary

IGNORE = -1
"""Label of the pixels that a mask says nothing about."""

_UNKNOWN = 255
_SHAPE_TOLERANCE = 0.02  # of width over height; a mask that was scaled to whole pixels differs by less
_THREADS = 8
_SHOWN = 20
_ONE_CLASS = (Category("object", ("object",)),)


def image_masks_spec(
    name: str, *, images: str | os.PathLike, masks: str | os.PathLike, classes: str | os.PathLike | None = None
) -> DatasetSpec:
    """The spec of a data set in this format: its two folders, and a vocabulary file where it has several classes."""
    files = {"images": str(images), "masks": str(masks)} | ({"classes": str(classes)} if classes is not None else {})
    return DatasetSpec(
        name,
        load=partial(load_records, name, files),
        load_vocabulary=partial(load_vocabulary, files),
        evaluator="masks",
        files=files,
    )


def load_vocabulary(files: Mapping[str, str]) -> Vocabulary:
    """The K classes beside the background; the first has value 1 in the masks. Without a file, one: "object"."""
    return parse_vocabulary(Path(files["classes"])) if "classes" in files else _ONE_CLASS


def load_records(name: str, files: Mapping[str, str]) -> list[dict[str, Any]]:
    """One record per image, sorted by name, numbers in names by their value: file_name, image_id, height, width,
    mask_file_name, num_classes.

    Raises:
        UserError: a folder is missing or holds no files; images without masks or masks without images, all of them
            named; a file that is no image.
    """
    num_classes = len(load_vocabulary(files))
    images, masks = (files_by_stem(name, role, files[role]) for role in ("images", "masks"))
    _require_pairs(name, images, masks)
    stems = sorted(images, key=natural_order)
    with ThreadPoolExecutor(_THREADS) as pool:  # opening files waits for the disk
        sizes = list(pool.map(upright_size, (images[stem] for stem in stems)))
    return [
        {
            "file_name": images[stem],
            "image_id": stem,
            "height": height,
            "width": width,
            "mask_file_name": masks[stem],
            "num_classes": num_classes,
        }
        for stem, (height, width) in zip(stems, sizes, strict=True)
    ]


def read_labels(record: dict[str, Any]) -> Tensor:
    """The label of every pixel of the image, int64 [H, W]: 0 the background, 1 … K, `IGNORE` where nothing is said.

    Raises:
        UserError: the mask cannot be read, is of another shape than its image, or holds a value that is no class.
    """
    path, num_classes = record["mask_file_name"], record["num_classes"]
    labels = read_class_indices(path)
    (height, width), size = labels.shape, (record["height"], record["width"])
    if abs(width / height * size[0] / size[1] - 1) > _SHAPE_TOLERANCE:
        raise UserError(f"{path} is {width}×{height} but its image is {size[1]}×{size[0]}, which is another shape")
    if labels.shape != size:
        labels = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    if num_classes == 1:
        labels[labels == _UNKNOWN] = 1
    else:
        labels[labels == _UNKNOWN] = IGNORE
    wrong = labels[(labels > num_classes) | (labels < IGNORE)].unique().tolist()
    if wrong:
        known = "0 and 255, or 0 and 1" if num_classes == 1 else f"0 to {num_classes}, and 255 where nothing is said"
        some = ", ".join(map(str, wrong[:_SHOWN]))
        raise UserError(f"{path} has pixels of the value {some}; a mask of {num_classes} classes has {known}")
    return labels


def natural_order(stem: str) -> list[Any]:
    """A key by which 2 comes before 10: runs of digits are compared by their value."""
    parts = re.split(r"([0-9]+)", stem)
    return [(int(part), part) if index % 2 else part for index, part in enumerate(parts)]


def choose_shots(records: Sequence[dict[str, Any]], shots: int, seed: int | None = None) -> list[dict[str, Any]]:
    """The `shots` records that are learned from: the first ones, or with a seed as many drawn at random.

    Raises:
        UserError: there are fewer records.
    """
    if not 2 <= shots <= len(records):
        raise UserError(f"{shots} shots were asked for, of {len(records)} labelled images; give 2 to {len(records)}")
    if seed is None:
        return list(records[:shots])
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed))
    return [records[index] for index in order[:shots].tolist()]


def _require_pairs(name: str, images: Mapping[str, str], masks: Mapping[str, str]) -> None:
    problems = []
    for what, missing, others in (("masks", images, masks), ("images", masks, images)):
        lonely = sorted((stem for stem in missing if stem not in others), key=natural_order)
        if lonely:
            some = ", ".join(missing[stem] for stem in lonely[:_SHOWN])
            more = f" and {len(lonely) - _SHOWN} more" if len(lonely) > _SHOWN else ""
            problems.append(f"{len(lonely)} have no {what}: {some}{more}")
    if problems:
        raise UserError(f"data set {name}: of the {len(images)} images and {len(masks)} masks {'; '.join(problems)}")
