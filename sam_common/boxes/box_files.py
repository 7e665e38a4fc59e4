"""Boxes from files, checked before anything uses them.

    COCO results   [{"image_id": 7, "bbox": [x, y, width, height], "score": 0.9, "category_id": 1, "segmentation": …}]
                   an RLE as segmentation may stand without bbox; without a score it is 1; "file_name" names the image
                   in place of image_id where a tool looks for pictures; in results of whole objects "prompt_bbox" is
                   the box of what is seen, and read instead of bbox
    simple JSON    {"street.jpg": [[x0, y0, x1, y1], …], …}, a fifth number is the score
    CSV            file,x0,y0,x1,y1[,score]; a first line of such words is left out

All in pixels. Pickled files are refused, since reading one may run what it says; `detectron2-sam convert-boxes` reads
one without that.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pickletools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sam_common.boxes.boxes import Boxes, box_fault
from sam_common.errors import UserError
from sam_common.io.files import read_bytes
from sam_common.masks.rle import checked_segmentation, segmentation_extent

ImageId = int | str


@dataclass
class _Found:
    """What a file says of one image, entry by entry."""

    boxes: list[Sequence[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    masks: list[Any] = field(default_factory=list)

    def boxed(self, where: str) -> Boxes:
        """Raises UserError where only some entries have a class or a mask."""
        for key, values in (("category_id", self.categories), ("segmentation", self.masks)):
            if values and len(values) != len(self.boxes):
                raise UserError(f"{where}: {len(values)} of its {len(self.boxes)} entries have {key}; give it to all")
        boxes = torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 4)
        return Boxes(boxes, torch.tensor(self.scores), self.categories or None, self.masks or None)


def read_coco_results(path: str | os.PathLike) -> dict[ImageId, Boxes]:
    """The entries of a COCO results JSON by image id. Boxes may reach beyond their image, whose size nothing says.

    Raises:
        UserError: the file cannot be read, or an entry is of no use; it is named.
    """
    return _coco_results(_read_json(path), path, by_name=False)


def read_box_file(path: str | os.PathLike) -> dict[str, Boxes]:
    """The boxes of a file in any of the three forms, by file name, or by the image id as a text.

    Raises:
        UserError: the file cannot be read or is empty, or an entry is of no use; it is named.
    """
    if Path(path).suffix.lower() == ".csv":
        found = _csv(_read(path), path)
    else:
        content = _read_json(path)
        if isinstance(content, dict):
            found = _simple(content, path)
        else:
            found = {str(key): boxes for key, boxes in _coco_results(content, path, by_name=True).items()}
    if not any(len(boxes) for boxes in found.values()):
        raise UserError(f"{path} holds no boxes")
    return found


def _coco_results(content: Any, path: str | os.PathLike, *, by_name: bool) -> dict[ImageId, Boxes]:
    if not isinstance(content, list):
        raise UserError(f"{path} is no COCO results JSON: it must hold a list of entries with image_id and bbox")
    images: dict[ImageId, _Found] = defaultdict(_Found)
    for index, entry in enumerate(content):
        where = f"{path}, entry {index}"
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if by_name and isinstance(entry, dict):
            image_id = entry.get("file_name", image_id)
        if isinstance(image_id, bool) or not isinstance(image_id, int | str):
            raise UserError(f"{where}: 'image_id' is missing, or no number or text")
        found = images[image_id]
        found.boxes.append(_corners(entry, where))
        found.scores.append(_score(entry.get("score", 1.0), where))
        if entry.get("category_id") is not None:
            found.categories.append(str(entry["category_id"]))
        if entry.get("segmentation") is not None:
            found.masks.append(entry["segmentation"])
    return {image_id: found.boxed(f"{path}, image {image_id!r}") for image_id, found in images.items()}


def _corners(entry: dict[str, Any], where: str) -> list[float]:
    """The XYXY box of a result: the one it answers, where it is of a whole object; its bbox; that of its mask."""
    bbox = entry.get("prompt_bbox", entry.get("bbox"))
    if bbox is None and isinstance(entry.get("segmentation"), dict):
        bbox = _box_of_mask(entry["segmentation"], where)
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise UserError(f"{where}: 'bbox' must be [x, y, width, height]")
    x, y, width, height = (_number(value, f"{where}: bbox {bbox}") for value in bbox)
    return _checked([x, y, x + width, y + height], f"{where}: the bbox {bbox}")


def _box_of_mask(rle: dict[str, Any], where: str) -> list[int]:
    size = rle.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise UserError(f"{where}: the size of its RLE must be [height, width]")
    height, width = size
    return segmentation_extent(checked_segmentation(rle, height, width, where), height, width)[0]


def _simple(content: dict[str, Any], path: str | os.PathLike) -> dict[str, Boxes]:
    found = {}
    for name, rows in content.items():
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) in (4, 5) for row in rows):
            raise UserError(
                f"{path}: {name!r} must be a list of boxes [x0, y0, x1, y1], or with a score [x0, y0, x1, y1, s]"
            )
        found[name] = _rows([(f"{path}, {name!r}, box {index}", row) for index, row in enumerate(rows)])
    return found


def _csv(content: bytes, path: str | os.PathLike) -> dict[str, Boxes]:
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    rows: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and [word.strip() for word in line[1:3]] == ["x0", "y0"]):
            continue
        if len(line) not in (5, 6):
            raise UserError(f"{path}, line {number}: give file,x0,y0,x1,y1 or file,x0,y0,x1,y1,score")
        rows[line[0].strip()].append((f"{path}, line {number}", line[1:]))
    return {name: _rows(some) for name, some in rows.items()}


def _rows(rows: Iterable[tuple[str, Sequence[Any]]]) -> Boxes:
    """Boxes of rows of four numbers, or five with the score, each with where it stands."""
    found = _Found()
    for where, row in rows:
        box = [_number(value, where) for value in row[:4]]
        found.boxes.append(_checked(box, f"{where}: the box {list(row[:4])}"))
        found.scores.append(_score(row[4] if len(row) == 5 else 1.0, where))
    return found.boxed("")


def _checked(box: list[float], what: str) -> list[float]:
    rounded = torch.tensor(box, dtype=torch.float32).tolist()  # what is used: a side may vanish in it
    if fault := box_fault(rounded):
        raise UserError(f"{what} {fault}")
    return rounded


def _score(value: Any, where: str) -> float:
    score = _number(value, f"{where}: the score")
    if not math.isfinite(score):
        raise UserError(f"{where}: the score {value!r} is no number")
    return score


def _number(value: Any, where: str) -> float:
    """A number of JSON or a text of CSV; NaN and infinity are left to `box_fault`."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise UserError(f"{where}: {str(value)[:40]!r} is no number") from None


def _read_json(path: str | os.PathLike) -> Any:
    content = _read(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {' '.join(str(error).split())}") from error


def _read(path: str | os.PathLike) -> bytes:
    content = read_bytes(path, "box file")
    if is_pickled(content):
        raise UserError(
            f"{path} is a pickled file, which may run code when it is read; "
            f"convert it without that risk: detectron2-sam convert-boxes {path} --output boxes.json"
        )
    if not content.strip():
        raise UserError(f"{path} is empty; it holds no boxes")
    return content


def is_pickled(content: bytes) -> bool:
    """Whether bytes are a pickle: by how it begins from protocol 2 on, by all of it in the older, textual ones."""
    if content[:1] == b"\x80":
        return content[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if content[:1] not in (b"(", b"]", b"}", b"c") or content[-1:] != b".":
        return False
    try:
        return sum(1 for _ in pickletools.genops(content)) > 1
    except (ValueError, UnicodeDecodeError, IndexError):
        return False
