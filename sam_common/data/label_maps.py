"""Reader of semantic data sets: a folder of images and a folder of label maps with the same names.

A label map is a PNG (or another lossless image, of one channel or of equal ones, 8 or 16 bits) whose pixels are class
indices: 0 is the first class of a vocabulary file. Pixels without a class have the greatest value, 255; with more than
255 classes 65535.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sam_common.contracts import SegmentationRecord
from sam_common.data.coco_json import missing
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_class_indices, upright_size
from sam_common.data.remarks import Remarks, log_once
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.io.lossy import lossy_format
from sam_common.io.pictures import picture_suffixes
from sam_common.structures import Vocabulary
from sam_common.text import some

_THREADS = 8  # opening files waits for the disk


def label_maps_spec(
    name: str,
    *,
    images: str | os.PathLike,
    labels: str | os.PathLike,
    classes: str | os.PathLike,
    image_suffix: str = "",
    label_suffix: str = "",
) -> DatasetSpec:
    """The spec of a data set in this format.

    Args:
        images, labels: its folders.
        classes: the vocabulary file that lists its classes.
        image_suffix, label_suffix: what the names of images and label maps end in, beyond what they share.
    """
    files = {"images": str(images), "labels": str(labels), "classes": str(classes)}
    files |= {"image_suffix": image_suffix, "label_suffix": label_suffix}
    files = {role: value for role, value in files.items() if value}
    return DatasetSpec(
        name,
        load=partial(load_records, name, files),
        load_vocabulary=partial(load_vocabulary, name, files),
        truth="semantic",
        files=files,
    )


def load_vocabulary(name: str, files: Mapping[str, str]) -> Vocabulary:
    """The classes of the vocabulary file; the first is index 0.

    Raises:
        UserError: the file is missing or not in its grammar.
    """
    if not os.path.isfile(files["classes"]):
        raise UserError(missing(name, "vocabulary file", files["classes"]))
    return parse_vocabulary(Path(files["classes"]))


def load_records(name: str, files: Mapping[str, str]) -> list[SegmentationRecord]:
    """One record per label map, sorted by path, as `DatasetSpec` describes them.

    `a/b.png` in the folder of labels belongs to `a/b.jpg`, or another extension, in the folder of images; its path
    without the extension is the image's id. Images without a label map are skipped.

    Raises:
        UserError: a folder is missing or holds no pictures, two have one name but for the extension, label maps have no
            image, cannot be read or are of a lossy format.
    """
    num_classes = len(load_vocabulary(name, files))
    images, labels = (pictures_by_stem(name, role, files) for role in ("images", "labels"))
    if lonely := [path for stem, path in labels.items() if stem not in images]:
        raise UserError(
            f"data set {name}: {len(lonely)} label maps have no image of their name in {files['images']}: "
            f"{some(lonely)}; where the names differ in their ends, give LABEL_SUFFIX and IMAGE_SUFFIX"
        )
    if skipped := len(images) - len(labels):
        told = f"data set {name}: {skipped} of {len(images)} images have no label map and are skipped"
        log_once(told, logging.INFO)
    refuse_lossy(name, labels.values())
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = list(pool.map(upright_size, labels.values()))
    return [
        {
            "file_name": images[stem],
            "image_id": stem,
            "height": height,
            "width": width,
            "sem_seg_file_name": path,
            "num_classes": num_classes,
            "ignore_label": ignore_label(num_classes),
        }
        for (stem, path), (height, width) in zip(labels.items(), sizes, strict=True)
    ]


def ignore_label(num_classes: int) -> int:
    """The value of pixels without a class."""
    return 255 if num_classes <= 255 else 65535


def read_label_map(record: SegmentationRecord) -> Tensor:
    """The class index of every pixel, int64 [H, W], -1 where there is none.

    Raises:
        UserError: the file cannot be read, is of another size than the record says, or holds an unknown value.
    """
    path, size = record["sem_seg_file_name"], (record["height"], record["width"])
    labels = read_class_indices(path)
    if labels.shape != size:
        height, width = labels.shape
        raise UserError(f"{path} is {width}×{height} but its image is {size[1]}×{size[0]}")
    labels[labels == record["ignore_label"]] = -1
    if int(labels.max()) >= record["num_classes"]:
        raise UserError(
            f"{path} has the value {int(labels.max())}, but there are {record['num_classes']} classes, numbered from "
            f"0; {record['ignore_label']} marks pixels without a class"
        )
    return labels


def refuse_lossy(name: str, paths: Collection[str]) -> None:
    """Raises UserError where pictures that hold numbers of classes are of a lossy format."""
    with ThreadPoolExecutor(_THREADS) as pool:
        formats = {path: lossy for path, lossy in zip(paths, pool.map(lossy_format, paths), strict=True) if lossy}
    if formats:
        shown = some(f"{path} ({lossy})" for path, lossy in formats.items())
        raise UserError(
            f"data set {name}: {len(formats)} label maps are in a lossy format, which changes their values: "
            f"{shown}; save the originals as PNG"
        )


def pictures_by_stem(name: str, role: str, files: Mapping[str, str]) -> dict[str, str]:
    """Path within a folder, without the suffix and the extension -> path of the picture, sorted.

    What is no picture by its extension, is hidden, or has not the suffix is skipped; a warning counts it.

    Args:
        role: such as "images", for the folder `files["images"]` and the suffix `files["image_suffix"]`, if any.

    Raises:
        UserError: the folder cannot be listed or holds no such pictures, or two have one name.
    """
    folder, suffix = files[role], files.get(f"{role.removesuffix('s')}_suffix", "")
    found: dict[str, str] = {}
    remarks = Remarks(folder)
    for parent, folders, entries in os.walk(folder, onerror=_refuse(name, role)):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        for file in sorted(entries):
            path = Path(parent, file)
            if file.startswith(".") or path.suffix.lower() not in picture_suffixes():
                remarks.add("a file that is hidden or not a picture, skipped", path.relative_to(folder))
                continue
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if not stem.endswith(suffix):
                remarks.add(f"a picture whose name does not end in {suffix}, skipped", path.relative_to(folder))
                continue
            stem = stem.removesuffix(suffix)
            if stem in found:
                raise UserError(
                    f"data set {name}: {found[stem]} and {path} have one name but for their extension; keep one of them"
                )
            found[stem] = str(path)
    if not found:
        raise UserError(f"data set {name}: the {role} folder {folder} holds no pictures{remarks.reasons()}")
    remarks.warn()
    return dict(sorted(found.items()))


def _refuse(name: str, role: str) -> Any:
    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            raise UserError(missing(name, f"{role} folder", error.filename)) from None
        raise UserError(f"data set {name}: the {role} folder {error.filename} cannot be listed: {error.strerror}")

    return refuse
