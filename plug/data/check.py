"""Everything that can be wrong with the annotations of an amodal file, found in one walk through it.

The readers stop at what contradicts the format and leave out what cannot be used; this goes on, and names all of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pycocotools import mask as codec

from plug.data import coco_amodal, cocoa
from plug.data.annotations import CROWD, OTHER_RATE, contradicts_rate, read_masks
from sam_common.boxes.boxes import is_near, is_xywh
from sam_common.contracts import ImageRecord
from sam_common.data.coco_json import Mask, parse_annotation, parse_categories
from sam_common.data.images import upright_size
from sam_common.data.json_values import flag
from sam_common.errors import UserError
from sam_common.masks.rle import as_rle

REFUSED = "an entry that the reader refuses"
OUTSIDE_AMODAL = "visible pixels outside the amodal mask"
OUTSIDE_IMAGE = "an outline that leaves the image"
NO_BOX = "a box without area, or not of four numbers"
BOX_OUTSIDE = "a box that leaves the image"
OTHER_BOX = "a box that is not that of its mask"
TWICE = "the masks of an object before it"
IMAGE = "an image that is missing or of another size"

_SLACK = 2.0
"""Pixels by which an edge may be off: tools count from the corners or the centres of pixels, and round."""

Records = Mapping[int | str, ImageRecord]


@dataclass
class Notes:
    """What a walk found, besides the objects.

    Attributes:
        faults: kind of fault -> the entries that have it.
        skipped: reason -> how many entries are not objects, though nothing is wrong with them.
    """

    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass
class Finding:
    """An object whose two masks can be read and are not empty.

    Attributes:
        name: its id, or what else finds it in the file.
        category: the name of its class.
        record: of its image: file_name, image_id, height, width.
        entry: what the file says of it.
        box_keys: the keys of `entry` under which there may be the boxes of the two masks.
        amodal, visible: its masks.
        common: the number of pixels in both.
    """

    name: str
    category: str
    record: ImageRecord
    entry: dict[str, Any]
    box_keys: tuple[str, ...]
    amodal: Mask
    visible: Mask
    common: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of its image."""
        return self.record["height"], self.record["width"]


def is_cocoa(content: Any) -> bool:
    """Whether a content has the form of the original COCOA: annotations that have regions."""
    entries = content.get("annotations") if isinstance(content, dict) else None
    return bool(isinstance(entries, list) and entries and isinstance(entries[0], dict) and "regions" in entries[0])


def find_objects(content: dict, source: str, records: Records, notes: Notes) -> Iterator[Finding]:
    """All objects of a file that can be used; what is wrong with them or others goes into `notes`.

    Raises:
        UserError: the form of the annotations, or its classes, cannot be made out.
    """
    walk = _cocoa_objects if is_cocoa(content) else _coco_objects
    known: set[tuple[Any, ...]] = set()
    for found in walk(content, source, records, notes):
        rles = [as_rle(mask.segmentation, *found.size) for mask in (found.amodal, found.visible)]
        found.common = int(codec.area(codec.merge(rles, intersect=True)))
        for kind, detail in _faults_of(found):
            notes.faults[kind].append(f"{found.name}{detail}")
        key = (found.record["image_id"], found.category, *(rle["counts"] for rle in rles))
        if key in known:
            notes.faults[TWICE].append(found.name)
        known.add(key)
        yield found


def check_images(records: Records, notes: Notes) -> None:
    """Notes every image that is not there, or not of the size that the file says."""
    for record in records.values():
        try:
            height, width = upright_size(record["file_name"])
        except UserError as error:
            notes.faults[IMAGE].append(str(error))
            continue
        if (height, width) != (record["height"], record["width"]):
            said = f"{record['width']}×{record['height']}"
            notes.faults[IMAGE].append(f"{record['file_name']} is {width}×{height}, the file says {said}")


def _coco_objects(content: dict, source: str, records: Records, notes: Notes) -> Iterator[Finding]:
    schema = coco_amodal.find_schema(content, source)
    classes = parse_categories(content, source, all_things=True)
    index_of = {category.id: index for index, category in enumerate(classes)}
    ids: set[int | str] = set()
    for number, entry in enumerate(content["annotations"], start=1):
        try:
            _, record, known, where = parse_annotation(entry, number, source, ids, records, index_of)
            crowd = flag(entry, "iscrowd", where, default=False)
            masks = read_masks(entry, schema.amodal, schema.visible, record, where, always=schema.always)
        except UserError as error:
            notes.faults[REFUSED].append(str(error).removeprefix(f"{source}, "))
            continue
        name = str(known["id"])
        if crowd:
            notes.skipped[CROWD] += 1
        elif isinstance(masks, str):
            notes.faults[masks].append(name)
        else:
            yield Finding(name, classes[known["category_id"]].name, record, entry, schema.boxes, *masks)


def _cocoa_objects(content: dict, source: str, records: Records, notes: Notes) -> Iterator[Finding]:
    for region, record, place, again in cocoa.parse_regions(content, source, records):
        where = f"{source}, {place}"
        try:
            reason = cocoa.why_no_object(region, again, where)
            masks = reason or read_masks(region, "segmentation", "visible_mask", record, where, always=False)
        except UserError as error:
            notes.faults[REFUSED].append(str(error).removeprefix(f"{source}, "))
            continue
        if masks in (CROWD, cocoa.STUFF):
            notes.skipped[reason] += 1
        elif isinstance(masks, str):
            notes.faults[masks].append(place)
        else:
            yield Finding(place, cocoa.OBJECT[0].name, record, region, (), *masks)


def _faults_of(found: Finding) -> Iterator[tuple[str, str]]:
    """What is wrong with an object: the kind of fault, and what to say behind its name."""
    height, width = found.size
    seen = found.visible.area
    if seen > found.common:
        yield OUTSIDE_AMODAL, f" ({seen - found.common} of {seen})"
    if contradicts_rate(found.entry, found.amodal, found.visible):
        yield OTHER_RATE, ""
    for polygon in found.amodal.segmentation if isinstance(found.amodal.segmentation, list) else ():
        x, y = polygon[::2], polygon[1::2]
        if min(*x, *y) < -_SLACK or max(x) > width + _SLACK or max(y) > height + _SLACK:
            yield OUTSIDE_IMAGE, ""
            break
    for key, mask in zip(found.box_keys, (found.amodal, found.visible), strict=False):
        if key in found.entry and (kind := _box_fault(found.entry[key], mask.box, found.size)):
            yield kind, f" ({key})"


def _box_fault(box: Any, tight: list[int], size: tuple[int, int]) -> str:
    """What is wrong with a box [x, y, width, height] of a mask whose own box is `tight`; "" where nothing is."""
    if not is_xywh(box):
        return NO_BOX
    x, y, width, height = box
    if x < -_SLACK or y < -_SLACK or x + width > size[1] + _SLACK or y + height > size[0] + _SLACK:
        return BOX_OUTSIDE
    return "" if is_near(box, tight) else OTHER_BOX
