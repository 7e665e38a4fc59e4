"""Reader of the original COCOA annotation: images with regions, each with its whole outline and what is seen of it.

Either one JSON with `images` and `annotations`, an entry per image; or a folder with such an entry per image, `1.json`
beside `1.jpg`. An entry has `image_id` and `regions`; a region

    segmentation                   polygon [x1, y1, x2, y2, …] of the whole object
    visible_mask, invisible_mask   RLE, where something covers it; one of them is enough
    isStuff                        1: no object, a kind of ground; left out
    name, order, occlude_rate      free text; the depth order; the hidden share of its area

All regions are of the one class "object". Zhu et al., "Semantic Amodal Segmentation", CVPR 2017.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from plug.data.annotations import CROWD, AmodalAnnotations, read_masks
from plug.structures import AmodalRecord
from sam_common.data.coco_json import R, missing, parse_images, read_json
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import upright_size
from sam_common.data.json_values import field, flag, known_id
from sam_common.errors import UserError
from sam_common.io.pictures import picture_suffixes
from sam_common.structures import Category, Vocabulary

OBJECT: Vocabulary = (Category("object", ("object",), True, 1),)

STUFF = "stuff, not an object"
SECOND = "the second annotation of its image"


def cocoa_spec(name: str, *, json_file: str | os.PathLike, images: str | os.PathLike) -> DatasetSpec:
    """The spec of a data set in this format: its JSON or folder of JSON files, its folder of images."""
    files = {"json": str(json_file), "images": str(images)}
    return DatasetSpec(
        name,
        load=partial(load_records, name, files),
        load_vocabulary=lambda: OBJECT,
        truth="amodal",
        files=files,
    )


def load_records(name: str, files: Mapping[str, str]) -> list[AmodalRecord]:
    """One record per image, as `plug.data.annotations` describes them; their annotations are numbered from 1.

    What cannot be used is left out and counted in warnings.

    Raises:
        UserError: a file is missing, the annotation is not in this format or contradicts itself, or no object is left.
    """
    source = files["json"]
    content = read_content(name, files)
    annotations = AmodalAnnotations(source, parse_images(content, source, files["images"]))
    for number, (region, record, place, again) in enumerate(
        parse_regions(content, source, annotations.records), start=1
    ):
        where = f"{source}, {place}"
        reason = why_no_object(region, again, where)
        masks = reason or read_masks(region, "segmentation", "visible_mask", record, where, always=False)
        if isinstance(masks, str):
            annotations.leave_out(masks, place)
        else:
            annotations.add(record, {"id": number, "category_id": 0}, region, masks, place)
    return annotations.finish(name)


def why_no_object(region: dict, again: bool, where: str) -> str:
    """Why a region of `parse_regions` is no object, or none of its own; "" where it is one."""
    if flag(region, "iscrowd", where, default=False):
        return CROWD
    return SECOND if again else STUFF if flag(region, "isStuff", where, default=False) else ""


def read_content(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    """The content of the JSON; of a folder, that of the JSON that `merge_files` would make.

    Raises:
        UserError: it cannot be read, or is in another format.
    """
    source = files["json"]
    if os.path.isdir(source):
        return merge_files(name, files)
    content = read_json(name, source)
    if isinstance(content, dict) and "regions" in content:
        raise UserError(f"{source} is the annotation of one image; name its folder instead")
    return content


def merge_files(name: str, files: Mapping[str, str]) -> dict[str, Any]:
    """One content {images, annotations} of a folder of JSON files, sorted by name, and the images beside them.

    Raises:
        UserError: the folder holds no JSON, an image or a file cannot be read, or a file is no annotation.
    """
    folder, images = Path(files["json"]), Path(files["images"])
    paths = sorted(folder.glob("*.json"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise UserError(f"{folder} holds no JSON files; COCOA has one for each image, or one for all")
    content: dict[str, Any] = {"images": [], "annotations": []}
    for path in paths:
        entry = read_json(name, str(path))
        field(entry, "regions", list, str(path))
        image = _image_of(name, path.stem, images)
        height, width = upright_size(image)
        image_id = field(entry, "image_id", (int, str), str(path))
        content["images"].append({"id": image_id, "file_name": image.name, "height": height, "width": width})
        content["annotations"].append(entry)
    return content


def _image_of(name: str, stem: str, folder: Path) -> Path:
    for suffix in sorted(picture_suffixes()):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise UserError(missing(name, "image", str(folder / f"{stem}.jpg")))


def parse_regions(content: dict, source: str, records: Mapping[int | str, R]) -> Iterator[tuple[dict, R, str, bool]]:
    """The regions of all images, stuff too.

    Yields:
        The region, the record of its image, where it stands, and whether an earlier entry was of the same image.

    Raises:
        UserError: an entry is not in this format, or of no image of the file.
    """
    seen: set[int | str] = set()
    for entry in field(content, "annotations", list, source):
        image_id = known_id(entry, "image_id", records, f"{source}, annotations")
        for number, region in enumerate(field(entry, "regions", list, f"{source}, image {image_id!r}"), start=1):
            place = f"image {image_id!r} region {number}"
            if not isinstance(region, dict):
                raise UserError(f"{source}, {place} is no mapping")
            yield region, records[image_id], place, image_id in seen
        seen.add(image_id)
