"""What the JSON files of COCO's formats have in common, and one clear line for whatever is wrong in one.

Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

from sam_common.contracts import ImageRecord, Segmentation
from sam_common.data.json_values import check_text, field, flag, identifier, known_id, number, whole_number
from sam_common.data.remarks import log_once
from sam_common.errors import UserError
from sam_common.io.files import refuse_special_file
from sam_common.masks.rle import checked_segmentation, segmentation_extent
from sam_common.structures import Category, Vocabulary
from sam_common.text import some

CROWD = "a crowd, ignored in training and evaluation (set iscrowd to 0 for a single object)"

_STUFF_SUFFIXES = ("merged", "other", "stuff")


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


def parse_categories(content: dict, source: str, *, all_things: bool = False) -> Vocabulary:
    """The classes of `categories`, in its order.

    A category that is the supercategory of others and that no annotation uses is no class, and a warning names it:
    Roboflow writes one before the classes.

    Args:
        all_things: the format knows no stuff, so `isthing` is not asked for.

    Raises:
        UserError: there are none, one lacks something, or two share an id or a name.
    """
    categories: list[Category] = []
    roots = _roots(content, source)
    for entry in field(content, "categories", list, source):
        if any(entry is root for root in roots):
            continue
        name = field(entry, "name", str, f"{source}, categories").strip()
        where = f"{source}, category {name!r}"
        is_thing = all_things or flag(entry, "isthing", where)
        words = words_from_name(name, is_thing)
        if "synonyms" in entry:
            words = tuple(dict.fromkeys(str(word).strip() for word in field(entry, "synonyms", list, where)))
            check_text("".join(words), f"{where}: 'synonyms'")
        if not words or "" in words:
            raise UserError(f"{where}: a class needs at least one word, in name or in synonyms, and none may be empty")
        categories.append(Category(name, words, is_thing, number(entry, "id", where)))
    if not categories:
        raise UserError(f"{source}: categories is empty")
    for what in ("id", "name"):
        (value, count), *_ = Counter(getattr(category, what) for category in categories).most_common(1)
        if count > 1:
            remedy = f"give each {'an id' if what == 'id' else 'a name'} of its own, or keep one of them"
            raise UserError(f"{source}: {count} categories have the {what} {value!r}; {remedy}")
    return tuple(categories)


def _roots(content: dict, source: str) -> list[dict]:
    """The entries of `categories` that only hold others together."""
    categories = field(content, "categories", list, source)
    entries = [entry for entry in categories if isinstance(entry, dict) and isinstance(entry.get("name"), str)]

    def is_parent(entry: dict) -> bool:
        return any(other is not entry and other.get("supercategory") == entry["name"] for other in entries)

    parents = {str(entry.get("supercategory")) for entry in entries}  # few names pass, so few entries are compared
    found = [entry for entry in entries if entry["name"] in parents and is_parent(entry)]
    used = _used_categories(content) if found else set()
    roots = [entry for entry in found if used and whole_number(entry.get("id")) not in used]
    if roots:
        names = some(entry["name"] for entry in roots)
        log_once(f"{source}: {len(roots)} × a supercategory that no annotation uses, left out of the classes: {names}")
    return roots


def _used_categories(content: dict) -> set[int | None]:
    def entries_of(value: Any) -> list[dict]:
        return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []

    annotations = entries_of(content.get("annotations"))
    segments = [segment for entry in annotations for segment in entries_of(entry.get("segments_info"))]
    return {whole_number(entry.get("category_id")) for entry in (*annotations, *segments)} - {None}


def warn_of_unused_classes(source: str, vocabulary: Vocabulary, used: AbstractSet[int]) -> None:
    """Warns of the classes without an annotation; `used` are the indices of the others."""
    if idle := [category.name for index, category in enumerate(vocabulary) if index not in used]:
        log_once(f"{source}: {len(idle)} × a class without an annotation: {some(idle, most=8)}")


def load_categories(name: str, path: str, *, all_things: bool = False) -> Vocabulary:
    """The classes of the JSON of data set `name`; see `parse_categories`."""
    return parse_categories(read_json(name, path), path, all_things=all_things)


def parse_images(content: dict, source: str, folder: str) -> dict[int | str, ImageRecord]:
    """The entries of `images` by id, as the first four keys of records: file_name, image_id, height, width.

    Raises:
        UserError: there are none, two entries have one id, or an entry lacks something.
    """
    records: dict[int | str, ImageRecord] = {}
    for entry in field(content, "images", list, source):
        image_id = identifier(entry, "id", f"{source}, images")
        where = f"{source}, image {image_id!r}"
        if image_id in records:
            raise UserError(f"{source}: two entries of images have the id {image_id!r}")
        records[image_id] = {
            "file_name": file_in(folder, entry, where),
            "image_id": image_id,
            "height": _side(entry, "height", where),
            "width": _side(entry, "width", where),
        }
    if not records:
        raise UserError(f"{source}: images is empty, there is nothing to train or test on")
    return records


R = TypeVar("R", bound=ImageRecord)


class Known(TypedDict):
    """What is known of an annotation: its id, or its number in the file, from 1; and the index of its class."""

    id: int | str
    category_id: int


class Parsed(NamedTuple, Generic[R]):
    """An entry of `annotations`, the record of its image, what is known of it, and how messages call it."""

    entry: dict
    record: R
    known: Known
    where: str


def parse_annotations(
    content: dict, source: str, records: Mapping[int | str, R], index_of: Mapping[int, int]
) -> Iterator[Parsed[R]]:
    """The entries of `annotations`, one for each instance; see `parse_annotation`."""
    ids: set[int | str] = set()
    for place, entry in enumerate(field(content, "annotations", list, source), start=1):
        yield parse_annotation(entry, place, source, ids, records, index_of)


def parse_annotation(
    entry: Any,
    place: int,
    source: str,
    ids: set[int | str],
    records: Mapping[int | str, R],
    index_of: Mapping[int, int],
) -> Parsed[R]:
    """Entry `place` of `annotations`, from 1.

    Args:
        ids: of the entries before it; its own is added.
        records: by the id of their image.
        index_of: the id of a class -> its index.

    Raises:
        UserError: an entry before it has its id, or it is of no image or of no class of the file.
    """
    field(entry, "image_id", object, f"{source}, annotations")
    unnamed = entry.get("id") is None
    annotation_id = place if unnamed else identifier(entry, "id", f"{source}, annotations")
    where = f"{source}, annotation {annotation_id!r}"
    if annotation_id in ids:
        raise UserError(f"{where}: two have this id; give each its own, or leave out all ids")
    ids.add(annotation_id)
    image_id = known_id(entry, "image_id", records, where)
    category_id = number(entry, "category_id", where)
    if category_id not in index_of:
        raise UserError(f"{where}: its category_id {category_id} is not in categories")
    known: Known = {"id": annotation_id, "category_id": index_of[category_id]}
    return Parsed(entry, records[image_id], known, where)


def read_json(name: str, path: str) -> dict:
    """The content of the JSON of data set `name`; UserError where it cannot be read."""
    refuse_special_file(path)
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(missing(name, "annotation file", path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {' '.join(str(error).split())}") from error


class Mask(NamedTuple):
    """A checked segmentation that has a pixel: its tight box [x, y, width, height] and its number of pixels."""

    segmentation: Segmentation
    box: list[int]
    area: int


def read_segmentation(value: Any, record: ImageRecord, where: str) -> Segmentation | None:
    """A segmentation as JSON gave it, checked; None where it is none: null, [], two corners or no run lengths.

    Raises:
        UserError: it is damaged, or of another size than the image.
    """
    if not value or (isinstance(value, dict) and not value.get("counts", True)):
        return None
    return checked_segmentation(value, record["height"], record["width"], where) or None


def read_mask(value: Any, record: ImageRecord, where: str) -> Mask | None:
    """A segmentation as `read_segmentation` gives it, measured; None where it has no pixel either."""
    segmentation = read_segmentation(value, record, where)
    return None if segmentation is None else measure(segmentation, record)


def measure(segmentation: Segmentation, record: ImageRecord) -> Mask | None:
    """A checked segmentation with its box and area; None where it has no pixel."""
    mask = Mask(segmentation, *segmentation_extent(segmentation, record["height"], record["width"]))
    return mask if mask.area else None


def _side(entry: dict, key: str, where: str) -> int:
    side = number(entry, key, where)
    if side < 1:
        raise UserError(f"{where}: {key} is {side}, an image has at least one pixel")
    return side


def file_in(folder: str, entry: dict, where: str) -> str:
    """The path of an entry's `file_name`, which must lie in the folder: results are written under that name."""
    name = field(entry, "file_name", str, where)
    if not name or os.path.isabs(name) or ".." in Path(name).parts:
        raise UserError(f"{where}: file_name {name!r} must be a path inside {folder}")
    return os.path.join(folder, name)


def require_files(name: str, role: str, paths: list[str]) -> None:
    """Every path must exist. Folders are listed once: asking file by file takes minutes on a network disk."""
    listings: dict[str, set[str]] = {}
    for path in paths:
        folder, file = os.path.split(path)
        if folder not in listings:
            try:
                listings[folder] = set(os.listdir(folder))
            except FileNotFoundError:
                raise UserError(missing(name, f"{role} folder", folder)) from None
            except (OSError, ValueError) as error:
                raise UserError(f"data set {name}: the {role} folder {folder} cannot be listed: {error}") from error
        if file not in listings[folder]:
            raise UserError(missing(name, f"file of {role}", path))


def missing(name: str, what: str, path: str) -> str:
    """The message for a file or folder of data set `name` that is not there."""
    root = os.environ.get("DETECTRON2_DATASETS", "unset, so ./datasets")
    return (
        f"data set {name}: there is no {what} {path}; put it there, or set DETECTRON2_DATASETS (now {root}) "
        "to the folder of the data sets; detectron2-sam prepare --help lists them"
    )
