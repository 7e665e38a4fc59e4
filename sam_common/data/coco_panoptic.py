"""Reader of the COCO panoptic format: COCO itself, ADE20K as Mask2Former prepares it, and anyone's own files.

One JSON with `images`, `annotations` (per image a PNG of segment ids and the list `segments_info`) and `categories`;
a folder of images; a folder of PNGs. Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import MAX_SEGMENT_ID, read_segment_ids
from sam_common.errors import UserError
from sam_common.structures import Category, Vocabulary

_STUFF_SUFFIXES = ("merged", "other", "stuff")


def coco_panoptic_spec(
    name: str, *, json_file: str | os.PathLike, images: str | os.PathLike, panoptic: str | os.PathLike
) -> DatasetSpec:
    """The spec of a data set in this format: its JSON, its folder of images, its folder of PNGs."""
    files = {"json": str(json_file), "images": str(images), "panoptic": str(panoptic)}
    return DatasetSpec(
        name,
        load=partial(load_records, name, files),
        load_vocabulary=partial(load_vocabulary, name, files),
        files=files,
    )


def load_vocabulary(name: str, files: Mapping[str, str]) -> Vocabulary:
    """The classes of the JSON's `categories`, in its order.

    Raises:
        UserError: the file is missing or not in this format, or two classes share an id or a name.
    """
    return _parse_categories(_read_json(name, files["json"]), files["json"])


def load_records(name: str, files: Mapping[str, str]) -> list[dict[str, Any]]:
    """One record per annotated image, in the order of `annotations`, as `DatasetSpec.load` describes them.

    Images without an annotation are passed by. Every image and PNG must be there; what is in them is checked when
    it is read.

    Raises:
        UserError: a file is missing, or the JSON is not in this format or contradicts itself.
    """
    source = files["json"]
    content = _read_json(name, source)
    index_of = {category.id: index for index, category in enumerate(_parse_categories(content, source))}
    image_by_id: dict[int | str, dict] = {}
    for entry in _field(content, "images", list, source):
        image_id = _field(entry, "id", (int, str), f"{source}, images")
        if image_id in image_by_id:
            raise UserError(f"{source}: two entries of images have the id {image_id!r}")
        image_by_id[image_id] = entry

    records: dict[int | str, dict[str, Any]] = {}
    for annotation in _field(content, "annotations", list, source):
        image_id = _field(annotation, "image_id", (int, str), f"{source}, annotations")
        where = f"{source}, the annotation of image {image_id!r}"
        if image_id not in image_by_id:
            raise UserError(f"{where}: images has no entry with this id")
        if image_id in records:
            raise UserError(f"{where}: there are two")
        image, where_image = image_by_id[image_id], f"{source}, image {image_id!r}"
        records[image_id] = {
            "file_name": _file(files["images"], image, where_image),
            "image_id": image_id,
            "height": _field(image, "height", int, where_image),
            "width": _field(image, "width", int, where_image),
            "pan_seg_file_name": _file(files["panoptic"], annotation, where),
            "segments_info": _parse_segments(annotation, index_of, where),
        }
    if not records:
        raise UserError(f"{source}: annotations is empty, there is nothing to train or test on")
    for key, role in (("file_name", "images"), ("pan_seg_file_name", "panoptic")):
        _require_files(name, role, [record[key] for record in records.values()])
    return list(records.values())


def read_ground_truth(record: dict[str, Any]) -> Tensor:
    """The annotation of one record: int64 [H, W], k+1 where `segments_info[k]` is, 0 where void.

    Raises:
        UserError: the PNG cannot be read, is of another size than the record says, holds an id that `segments_info`
            lacks, or lacks one that it holds.
    """
    path = record["pan_seg_file_name"]
    ids = read_segment_ids(path)
    if ids.shape != (record["height"], record["width"]):
        height, width = ids.shape
        raise UserError(f"{path} is {width}×{height} but its JSON says {record['width']}×{record['height']}")
    listed = torch.tensor([segment["id"] for segment in record["segments_info"]], dtype=torch.int32)
    labels, unknown = index_segments(ids, listed)
    if len(unknown):
        raise UserError(f"{path} disagrees with its JSON: segments_info lacks the ids {_some(unknown)}")
    areas = torch.bincount(labels.flatten(), minlength=len(listed) + 1)[1:]
    if not areas.all():
        raise UserError(f"{path} disagrees with its JSON: no pixel has the ids {_some(listed[areas == 0])}")
    return labels


def index_segments(ids: Tensor, listed: Tensor) -> tuple[Tensor, Tensor]:
    """Replaces segment ids by their place in a list.

    Args:
        ids: [H, W] int32, 0 where void.
        listed: [N] int32, distinct, none of them 0.

    Returns:
        int64 [H, W], k+1 where `listed[k]` is, 0 where void; and the ids that are not listed, sorted.
    """
    table, place = torch.cat([listed.new_zeros(1), listed]).sort()
    position = torch.searchsorted(table, ids).clamp_(max=len(listed))
    unknown = table[position] != ids
    return place[position], ids[unknown].unique()


def words_from_name(name: str, is_thing: bool) -> tuple[str, ...]:
    """The words that a class name of this format stands for.

    A comma separates synonyms (ADE20K: "road, route"). COCO's stuff names carry bookkeeping after hyphens, which is
    dropped ("sky-other-merged" is "sky"), and put the qualifier last, so both orders count ("wall-brick" is "brick
    wall" and "wall brick"; "window-blind" needs the second). Things keep their hyphens.
    """
    words: list[str] = []
    for part in (part.strip() for part in name.split(",")):
        pieces = [piece.strip() for piece in part.split("-")] if not is_thing else [part]
        while len(pieces) > 1 and pieces[-1] in _STUFF_SUFFIXES:
            pieces.pop()
        words += [" ".join(reversed(pieces)), " ".join(pieces)]
    return tuple(dict.fromkeys(word for word in words if word))


def _parse_categories(content: dict, source: str) -> Vocabulary:
    categories: list[Category] = []
    for entry in _field(content, "categories", list, source):
        name = _field(entry, "name", str, f"{source}, categories").strip()
        where = f"{source}, category {name!r}"
        is_thing = bool(_field(entry, "isthing", int, where))
        words = words_from_name(name, is_thing)
        if "synonyms" in entry:
            words = tuple(dict.fromkeys(str(word).strip() for word in _field(entry, "synonyms", list, where)))
        if not words or "" in words:
            raise UserError(f"{where}: a class needs at least one word, in name or in synonyms, and none may be empty")
        categories.append(Category(name, words, is_thing, _field(entry, "id", int, where)))
    if not categories:
        raise UserError(f"{source}: categories is empty")
    for what in ("id", "name"):
        (value, count), *_ = Counter(getattr(category, what) for category in categories).most_common(1)
        if count > 1:
            raise UserError(f"{source}: {count} categories have the {what} {value!r}")
    return tuple(categories)


def _parse_segments(annotation: dict, index_of: dict[int, int], where: str) -> list[dict[str, int]]:
    segments: dict[int, dict[str, int]] = {}
    for entry in _field(annotation, "segments_info", list, where):
        segment_id = _field(entry, "id", int, where)
        category_id = _field(entry, "category_id", int, where)
        if not 0 < segment_id <= MAX_SEGMENT_ID:
            raise UserError(f"{where}: segment id {segment_id} is outside 1..{MAX_SEGMENT_ID} (0 is void)")
        if segment_id in segments:
            raise UserError(f"{where}: two segments have the id {segment_id}")
        if category_id not in index_of:
            raise UserError(f"{where}: segment {segment_id} has the category_id {category_id}, not in categories")
        segments[segment_id] = {
            "id": segment_id,
            "category_id": index_of[category_id],
            "iscrowd": int(bool(entry.get("iscrowd", 0))),
            "area": _field({"area": 0} | entry, "area", (int, float), where),
        }
    return list(segments.values())


def _read_json(name: str, path: str) -> dict:
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(_missing(name, "annotation file", path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {' '.join(str(error).split())}") from error


def _field(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """entry[key], where `entry` must be a mapping that has it with a value of this kind."""
    if not isinstance(entry, dict) or key not in entry:
        raise UserError(f"{where}: {key!r} is missing; is this a COCO panoptic JSON?")
    if not isinstance(entry[key], kind):
        raise UserError(f"{where}: {key!r} is of the wrong type, {type(entry[key]).__name__}")
    return entry[key]


def _file(folder: str, entry: dict, where: str) -> str:
    """The path of an entry's `file_name`, which must lie in the folder: results are written under that name."""
    name = _field(entry, "file_name", str, where)
    if not name or os.path.isabs(name) or ".." in Path(name).parts:
        raise UserError(f"{where}: file_name {name!r} must be a path inside {folder}")
    return os.path.join(folder, name)


def _require_files(name: str, role: str, paths: list[str]) -> None:
    """Every path must exist. Folders are listed once: asking file by file takes minutes on a network disk."""
    listings: dict[str, set[str]] = {}
    for path in paths:
        folder, file = os.path.split(path)
        if folder not in listings:
            try:
                listings[folder] = set(os.listdir(folder))
            except FileNotFoundError:
                raise UserError(_missing(name, f"{role} folder", folder)) from None
            except (OSError, ValueError) as error:
                raise UserError(f"data set {name}: the {role} folder {folder} cannot be listed: {error}") from error
        if file not in listings[folder]:
            raise UserError(_missing(name, f"file of {role}", path))


def _missing(name: str, what: str, path: str) -> str:
    root = os.environ.get("DETECTRON2_DATASETS", "unset, so ./datasets")
    return (
        f"data set {name}: there is no {what} {path}; put it there, or set DETECTRON2_DATASETS (now {root}) "
        "to the folder that datasets/README.md describes"
    )


def _some(ids: Tensor) -> str:
    return ", ".join(map(str, ids[:5].tolist())) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
