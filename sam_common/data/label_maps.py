"""Reader of semantic data sets: a folder of images and a folder of label maps with the same names.

A label map is a PNG (or another lossless image of one channel, 8 or 16 bits) whose pixels are class indices: 0 is the
first class of a vocabulary file. Pixels without a class have the greatest value, 255; with more than 255 classes
65535.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sam_common.contracts import SegmentationRecord
from sam_common.data.coco_json import missing
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_class_indices
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.io.pictures import upright_size
from sam_common.structures import Vocabulary

_THREADS = 8  # opening files waits for the disk


def label_maps_spec(
    name: str, *, images: str | os.PathLike, labels: str | os.PathLike, classes: str | os.PathLike
) -> DatasetSpec:
    """The spec of a data set in this format: its two folders, and the vocabulary file that lists its classes."""
    files = {"images": str(images), "labels": str(labels), "classes": str(classes)}
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
    without the extension is the image's id. Images without a label map are passed by.

    Raises:
        UserError: a folder is missing or holds no files, two files have one name but for the extension, a label map
            has no image or cannot be read.
    """
    num_classes = len(load_vocabulary(name, files))
    images, labels = files_by_stem(name, "images", files["images"]), files_by_stem(name, "labels", files["labels"])
    for stem, path in labels.items():
        if stem not in images:
            raise UserError(f"data set {name}: the label map {path} has no image {stem}.* in {files['images']}")
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


def files_by_stem(name: str, role: str, folder: str, *, leave_out: Sequence[str] = ()) -> dict[str, str]:
    """Path within the folder, without extension -> path of the file, sorted; hidden files are passed by, and those with
    an extension to leave out."""
    found: dict[str, str] = {}
    for parent, folders, files in os.walk(folder, onerror=_refuse(name, role)):
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        for file in files:
            path = Path(parent, file)
            if file.startswith(".") or path.suffix.lower() in leave_out:
                continue
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in found:
                raise UserError(f"data set {name}: {found[stem]} and {path} have one name but for their extension")
            found[stem] = str(path)
    if not found:
        raise UserError(f"data set {name}: the {role} folder {folder} holds no files")
    return dict(sorted(found.items()))


def _refuse(name: str, role: str) -> Any:
    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            raise UserError(missing(name, f"{role} folder", error.filename)) from None
        raise UserError(f"data set {name}: the {role} folder {error.filename} cannot be listed: {error.strerror}")

    return refuse
