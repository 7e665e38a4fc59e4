"""Reader of the simplest data set there is: a folder of images and a folder of masks with the same names.

`images/a.jpg` belongs to `masks/a.png`; extensions are free, and with a suffix `masks/a_suffix.png` it is. A mask has
one value for each pixel, be it saved as one grey channel or as three equal ones: 0 is the background, and of one class
either 1 or 255 is the object; of K classes the values 1 … K are the classes, and 255 marks pixels that nothing is said
about. Of a palette picture the indices are the values, but of a black and white one of one class the colours: some
programs number them the other way round. A mask may be smaller or larger than its image, as those of some published
data sets are; its shape must be the image's.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from amsam.structures import MaskRecord
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_class_indices, read_image, upright_size
from sam_common.data.label_maps import pictures_by_stem, refuse_lossy
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.io.files import refuse_special_file
from sam_common.io.lossy import lossy_format
from sam_common.io.pictures import open_picture
from sam_common.structures import Category, Vocabulary
from sam_common.text import counted, some

IGNORE = -1
"""Label of the pixels that a mask says nothing about."""

_UNKNOWN = 255
_SHAPE_TOLERANCE = 0.02  # of width over height; a mask that was scaled to whole pixels differs by less
_THREADS = 8
_SHOWN = 20
_THRESHOLD_HINT = "--mask-threshold 128 (of a registered data set MASK_THRESHOLD: '128')"
_ONE_CLASS = (Category("object", ("object",)),)

Choose = Callable[[list[str]], list[str]]
"""All names of a folder, in order -> those of a part."""


def image_masks_spec(
    name: str,
    *,
    images: str | os.PathLike,
    masks: str | os.PathLike,
    classes: str | os.PathLike | None = None,
    names: str | os.PathLike | None = None,
    image_suffix: str = "",
    mask_suffix: str = "",
    mask_threshold: int | str | None = None,
    choose: Choose | None = None,
) -> DatasetSpec:
    """The spec of a data set in this format.

    Args:
        images, masks: its folders.
        classes: a vocabulary file, where it has several classes.
        names: a file that names the images of a part of the folder, one in each line, with or without its extension.
        image_suffix, mask_suffix: what the names of images and masks end in, beyond what they share.
        mask_threshold: of a data set of one class, 1 … 255: what is at least so light is the object. For masks whose
            values are not two but two groups, as JPEG makes them.
        choose: takes a part, instead of `names`.
    """
    given = {"images": images, "masks": masks, "classes": classes, "names": names}
    given |= {"image_suffix": image_suffix or None, "mask_suffix": mask_suffix or None}
    given |= {"mask_threshold": _checked_threshold(mask_threshold, classes)}
    files = {role: str(value) for role, value in given.items() if value is not None}
    return DatasetSpec(
        name,
        load=partial(load_records, name, files, choose),
        load_vocabulary=partial(load_vocabulary, files),
        truth="masks",
        files=files,
    )


def load_vocabulary(files: Mapping[str, str]) -> Vocabulary:
    """The K classes beside the background; the first has value 1 in the masks. Without a file, one: "object"."""
    classes = parse_vocabulary(Path(files["classes"])) if "classes" in files else _ONE_CLASS
    if len(classes) >= _UNKNOWN:
        raise UserError(f"{files['classes']} has {len(classes)} classes; masks have values of at most {_UNKNOWN - 1}")
    return classes


def load_records(name: str, files: Mapping[str, str], choose: Choose | None = None) -> list[MaskRecord]:
    """One record per image: file_name, image_id, height, width, mask_file_name, num_classes.

    They are sorted by name, numbers in names by their value; where a file names them, in its order.

    Raises:
        UserError: a folder is missing or holds no files; images without masks or masks without images, all of them
            named; a file that is no image; names that no image has.
    """
    num_classes = len(load_vocabulary(files))
    images, masks = (_pictures(name, role, files) for role in ("images", "masks"))
    if "names" in files:
        stems = _read_names(name, files["names"], images)
        images, masks = ({stem: paths[stem] for stem in stems if stem in paths} for paths in (images, masks))
    _require_pairs(name, images, masks)
    stems = list(images) if "names" in files else sorted(images, key=natural_order)
    if choose is not None:
        stems = choose(stems)
    if num_classes > 1:
        refuse_lossy(name, [masks[stem] for stem in stems])
    with ThreadPoolExecutor(_THREADS) as pool:  # opening files waits for the disk
        sizes = list(pool.map(upright_size, (images[stem] for stem in stems)))
    records: list[MaskRecord] = [
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
    if "mask_threshold" in files:
        for record in records:
            record["mask_threshold"] = int(files["mask_threshold"])
    return records


def folder_ids(name: str, files: Mapping[str, str]) -> set[str]:
    """The `image_id` of every image of the folder, of which a data set may be a part."""
    return set(_pictures(name, "images", files))


def read_labels(record: MaskRecord) -> Tensor:
    """The label of every pixel of the image, int64 [H, W]: 0 the background, 1 … K, `IGNORE` where nothing is said.

    Raises:
        UserError: the mask cannot be read, is of another shape than its image, is coloured, or holds a value that is no
            class.
    """
    path, num_classes = record["mask_file_name"], record["num_classes"]
    threshold = record.get("mask_threshold")
    if threshold is None:
        labels = _read_values(path, colours=num_classes == 1)
    else:
        labels = (read_image(path).float().mean(0) >= threshold).long()
    (height, width), size = labels.shape, (record["height"], record["width"])
    if abs(width / height * size[0] / size[1] - 1) > _SHAPE_TOLERANCE:
        hint = "; the EXIF orientation of one of them may turn it" if labels.shape == size[::-1] else ""
        told = f"{path} is {width}×{height} but its image is {size[1]}×{size[0]}, which is another shape{hint}"
        raise UserError(told)
    if labels.shape != size:
        labels = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    if num_classes == 1 and threshold is None:
        _refuse_faded(path, labels)
    unknown = labels == _UNKNOWN
    both = num_classes == 1 and unknown.any() and (labels == 1).any()
    labels[unknown] = 1 if num_classes == 1 else IGNORE
    wrong = labels[(labels > num_classes) | (labels < IGNORE)].unique().tolist()
    if wrong:
        known = "0 and 255, or 0 and 1" if num_classes == 1 else f"0 to {num_classes}, and 255 where nothing is said"
        told = f"{path} has pixels of the value {some(wrong, _SHOWN)}"
        hint = f"; where light pixels are the object, give {_THRESHOLD_HINT}" if num_classes == 1 else ""
        raise UserError(f"{told}; a mask of {counted(num_classes, 'class')} has {known}{hint}")
    if both:
        raise UserError(
            f"{path} has pixels of 1 and of 255; of one class either is the object: make each 255 a 0 or a 1"
        )
    return labels


def natural_order(stem: str) -> list[Any]:
    """A key by which 2 comes before 10: runs of digits are compared by their value."""
    parts = re.split(r"([0-9]+)", stem)
    return [(int(part), part) if index % 2 else part for index, part in enumerate(parts)]


def choose_shots(records: Sequence[MaskRecord], shots: int, seed: int | None = None) -> list[MaskRecord]:
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


def _pictures(name: str, role: str, files: Mapping[str, str]) -> dict[str, str]:
    """Name of an image -> path of its picture in the folder of that role."""
    found = pictures_by_stem(name, role, files)
    unwritable = [ascii(path) for stem, path in found.items() if re.search(r"[\n\r\ud800-\udfff]", stem)]
    if unwritable:
        told = f"data set {name}: rename {some(unwritable, _SHOWN)}"
        raise UserError(f"{told}: line breaks and broken letters fit in no list")
    return found


def _read_names(name: str, path: str, images: Mapping[str, str]) -> list[str]:
    """The names in a file of them, without extensions; each must be that of an image, once."""
    refuse_special_file(path)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n")
    except (OSError, ValueError) as error:  # not UTF-8, or a zero byte in its name
        raise UserError(f"data set {name}: the file of names {path} cannot be read: {error}") from error
    stems = [_stem(line, images) for line in lines if line.strip()]
    unknown = [stem for stem in stems if stem not in images]
    if unknown or not stems:
        fault = f"names no image: {some(unknown, _SHOWN)}" if unknown else "is empty"
        raise UserError(f"data set {name}: the file of names {path} {fault}; it has a line for each image of the part")
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise UserError(f"data set {name}: the file of names {path} has {some(twice, _SHOWN)} more than once")
    return stems


def _stem(line: str, images: Mapping[str, str]) -> str:
    """The name of an image in a line, as it stands or without spaces around it, and without its extension."""
    known = next((text for text in (line, line.strip()) if text in images), None)
    return known if known is not None else os.path.splitext(os.path.normpath(line.strip()))[0]


def _read_values(path: str, *, colours: bool) -> Tensor:
    """The value of every pixel, int64 [H, W].

    Args:
        colours: of a palette picture that is black and white take 0 and 255, not the indices.
    """
    with open_picture(path) as (image, _):
        mode = image.mode
    if mode == "P" and colours:
        shown = read_image(path)
        if (shown == shown[0]).all() and ((shown[0] == 0) | (shown[0] == 255)).all():
            return shown[0].long()
    return read_class_indices(path)


def _refuse_faded(path: str, labels: Tensor) -> None:
    """Raises UserError for a mask of 0 and 1 in a lossy format, whose object is lost in the noise."""
    most = int(labels.max())
    if 0 < most < 128 and (lossy := lossy_format(path)):
        raise UserError(
            f"{path} has values of 0 … {most} in a lossy format ({lossy}), which blurs masks of 0 and 1 beyond "
            "repair; save the original mask as PNG"
        )


def _checked_threshold(threshold: int | str | None, classes: object) -> str | None:
    if threshold is None:
        return None
    text = str(threshold)
    if not text.isdecimal() or not 1 <= int(text) <= 255:
        raise UserError(f"the mask threshold is {threshold}; it lies between 1 and 255")
    if classes is not None:
        raise UserError("the mask threshold is for masks of one class; these have a file of classes")
    return text


def _require_pairs(name: str, images: Mapping[str, str], masks: Mapping[str, str]) -> None:
    problems = []
    for what, missing, others in (("masks", images, masks), ("images", masks, images)):
        lonely = sorted((stem for stem in missing if stem not in others), key=natural_order)
        if lonely:
            problems.append(f"{len(lonely)} have no {what}: {some((missing[stem] for stem in lonely), _SHOWN)}")
    if problems:
        raise UserError(f"data set {name}: of the {len(images)} images and {len(masks)} masks {'; '.join(problems)}")
