"""Masks as COCO's files hold them, both ways: run lengths (RLE), or polygons that become them.

An RLE {"size": [H, W], "counts": …} lists how many pixels, column after column, are 0, then how many are 1, then 0
again, and so on. Compressed, `counts` is a text. From the fourth number on it holds the difference to the number two
places before. Five bits at a time, lowest first, each with a sixth that says whether more follow, become characters
from "0" on; the last of them carries the sign.

pycocotools encodes. It writes outside its memory where run lengths are damaged, and takes gigabytes for a polygon with
long edges, so what comes from a file is checked, and decoded, here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as codec
from torch import Tensor

from sam_common.boxes.boxes import tight_boxes, xywh
from sam_common.contracts import RLE, Segmentation
from sam_common.errors import UserError

_FARTHEST = 100_000
"""Pixels that a polygon may lie off the origin."""

_EDGES_PER_SIDE, _LONGEST_EDGES = 50, 1_000_000
"""How long the edges of a segmentation may be: so many times the image's height and width, and so many pixels. Drawing
takes time and memory, 105 bytes, for each. COCO's longest are 4 times that of their image."""

_MERGED = 16
"""Polygons that are merged at once."""

_MOST_PIXELS = 2**29
"""Of an image with masks; pycocotools reads no longer runs."""


def encode_mask(mask: Tensor | np.ndarray) -> RLE:
    """A mask [H, W] of bool or 0 and 1 as {"size": [H, W], "counts": str}, which JSON can hold."""
    return _as_json(codec.encode(np.asfortranarray(mask, dtype=np.uint8)))


def encode_labels(labels: Tensor | np.ndarray) -> dict[int, RLE]:
    """Every label of a map [H, W] of integers on its own: label -> `encode_mask(labels == label)`, in rising order.

    All of them in one pass over the runs of equal labels; the bytes are those of `encode_mask`.
    """
    labels = np.asarray(labels)
    if not labels.size:
        return {}
    if labels.min() >= 0 and labels.max() < 2**16:
        labels = labels.astype(np.uint16)  # moved and sorted in a fraction of the time
    columns = labels.ravel(order="F")
    starts = run_starts(columns)
    ends = np.append(starts[1:], columns.size)
    order = np.argsort(columns[starts], kind="stable")  # label after label, the runs of each where they were
    starts, ends, owners = starts[order], ends[order], columns[starts][order]
    first = run_starts(owners)
    before = np.append(0, ends[:-1])
    before[first] = 0
    counts = np.stack([starts - before, ends - starts], axis=1)  # pixels that are not the label's, and that are

    # A label's numbers: both of every run, and what is left behind the last one, if anything is.
    last = np.append(first[1:], owners.size) - 1
    rest = columns.size - ends[last]
    numbers = np.insert(counts.ravel(), 2 * (last + 1)[rest > 0], rest[rest > 0]).astype(np.uint32)
    lengths = 2 * (last - first + 1) + (rest > 0)
    parts = [{"size": labels.shape, "counts": part} for part in np.split(numbers, lengths.cumsum()[:-1])]
    encoded = codec.frPyObjects(parts, *labels.shape)
    return {int(label): _as_json(rle) for label, rle in zip(owners[first], encoded, strict=True)}


def area_and_box(mask: Tensor | np.ndarray) -> dict[str, Any]:
    """The `area` and the tight `bbox` [x, y, width, height] of a mask [H, W] of bool, whole numbers, as COCO's
    annotations have them; zeros where it is empty."""
    mask = torch.as_tensor(mask)
    return {"area": int(mask.sum()), "bbox": [int(side) for side in xywh(tight_boxes(mask[None])[0].tolist())]}


def run_starts(*maps: np.ndarray) -> np.ndarray:
    """Where a run of equal pixels begins: the indices, rising from 0, at which one of these flat maps changes."""
    if not maps[0].size:
        return np.zeros(0, dtype=np.int64)
    changes = maps[0][1:] != maps[0][:-1]
    for other in maps[1:]:
        changes |= other[1:] != other[:-1]
    return np.append(0, np.flatnonzero(changes) + 1)


def checked_segmentation(value: Any, height: int, width: int, where: str) -> Segmentation:
    """A segmentation as JSON gave it, in one of the two forms of `Segmentation`.

    Polygons of less than three points cover no pixel and are left out; COCO has some. One polygon may stand without
    the list around it, [x1, y1, x2, …], or as points [[x1, y1], [x2, y2], …]. Uncompressed run lengths are compressed.
    Runs of no pixels, which tools that split long runs write, join their neighbours.

    Raises:
        UserError: it is something else, of another size than the image, or damaged; or its polygons' edges are too long
            to draw.
    """
    pixels = height * width
    if pixels > _MOST_PIXELS:
        raise UserError(f"{where}: its image is said to be {width} × {height}, more than {_MOST_PIXELS:,} pixels")
    if isinstance(value, list):
        if value and not isinstance(value[0], list):
            value = [value]
        elif len(value) > 2 and all(isinstance(point, list) and len(point) == 2 for point in value):
            value = [[*itertools.chain(*value)]]
        return _checked_polygons(value, height, width, where)
    if not isinstance(value, dict) or not {"size", "counts"} <= value.keys():
        raise UserError(f"{where}: segmentation must be a list of polygons, or an RLE with size and counts")
    if value["size"] != [height, width]:
        raise UserError(f"{where}: the RLE's size is {value['size']!r}, that of the image [{height}, {width}]")
    counts = value["counts"]
    if isinstance(counts, list):
        if not all(type(run) is int and 0 <= run <= pixels for run in counts):
            raise UserError(f"{where}: the counts of an RLE are whole numbers from 0 on")
        runs = np.array(counts, np.int64)
    elif isinstance(counts, str):
        runs = _runs(counts, where)
    else:
        raise UserError(f"{where}: the counts of an RLE are a text or a list of numbers")
    _check_total(runs, pixels, where)
    if isinstance(counts, str) and runs[1:].all():
        return {"size": [height, width], "counts": counts}
    return _from_runs(_without_empty(runs), height, width)


def decode_segmentation(segmentation: Segmentation, height: int, width: int, where: str) -> Tensor:
    """The mask of a checked segmentation, bool [H, W].

    Raises:
        UserError: the run lengths are damaged.
    """
    runs = _runs(as_rle(segmentation, height, width, where)["counts"], where)
    _check_total(runs, height * width, where)
    inside = np.arange(len(runs)) % 2 == 1
    return torch.from_numpy(np.repeat(inside, runs).reshape(width, height)).T


def segmentation_extent(segmentation: Segmentation, height: int, width: int) -> tuple[list[int], int]:
    """The tight box [x, y, width, height] of a checked segmentation, zeros where it is empty, and its number of pixels.

    Both are read off the run lengths, in a hundredth of the time that decoding takes.
    """
    rle = as_rle(segmentation, height, width)
    return [int(side) for side in codec.toBbox(rle)], int(codec.area(rle))


def as_rle(segmentation: Segmentation, height: int, width: int, where: str = "a segmentation") -> RLE:
    """A checked segmentation as a compressed RLE {size: [H, W], counts: str}.

    Polygons are checked again: records may come from Detectron2's readers, which do not.
    """
    if isinstance(segmentation, dict):
        return segmentation
    polygons = _checked_polygons(segmentation, height, width, where)
    if not polygons:
        return _from_runs([height * width], height, width)
    rles = codec.frPyObjects(polygons, height, width)
    while len(rles) > 1:  # one after the other, each would go through the runs of all before it
        rles = [codec.merge(rles[start : start + _MERGED]) for start in range(0, len(rles), _MERGED)]
    return _as_json(rles[0])


def difference(first: Segmentation, second: Segmentation, height: int, width: int, where: str) -> RLE:
    """The pixels of one checked segmentation that another lacks, found from run to run."""
    runs = _runs(as_rle(second, height, width, where)["counts"], where)
    outside = _from_runs(np.append(0, runs) if runs[0] else runs[1:], height, width)
    return _as_json(codec.merge([as_rle(first, height, width, where), outside], intersect=True))


def _from_runs(runs: Sequence[int] | NDArray[np.int64], height: int, width: int) -> RLE:
    return _as_json(codec.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def _as_json(rle: dict[str, Any]) -> RLE:
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _checked_polygons(polygons: list[Any], height: int, width: int, where: str) -> list[list[float]]:
    """Those that cover pixels."""
    kept = [polygon for polygon in polygons if len(_checked_polygon(polygon, where)) >= 6]
    longest = min(_EDGES_PER_SIDE * (height + width), _LONGEST_EDGES)
    if sum(len(polygon) // 2 * (max(polygon) - min(polygon)) for polygon in kept) > longest:  # soon found, and no less
        length = sum(_edge_length(polygon) for polygon in kept)
        if length > longest:
            raise UserError(
                f"{where}: the edges of its polygons are {length:.0f} pixels long, an image of {width} × {height} has "
                f"room for {longest}; correct the coordinates, which are in pixels, or the size of the image"
            )
    return kept


def _edge_length(polygon: list[float]) -> float:
    """Steps from pixel to pixel all around."""
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _checked_polygon(polygon: Any, where: str) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise UserError(f"{where}: a polygon is a list [x1, y1, x2, y2, …]")
    are_numbers = {*map(type, polygon)} <= {int, float}  # all at once, since COCO has 40 million
    are_near = are_numbers and -_FARTHEST <= min(polygon, default=0) <= max(polygon, default=0) <= _FARTHEST
    if are_near and not math.isnan(sum(polygon)):
        return polygon
    wrong = next(value for value in polygon if type(value) not in (int, float) or not abs(value) <= _FARTHEST)
    raise UserError(f"{where}: a polygon has the coordinate {wrong!r}, which is no place in an image")


def _runs(counts: str, where: str) -> NDArray[np.int64]:
    """The run lengths of a compressed RLE."""
    groups = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise UserError(f"{where}: the counts of its RLE are damaged")
    last = np.flatnonzero(groups & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    place = np.arange(len(groups)) - np.repeat(first, last - first + 1)
    if place.max() > 5:  # 30 bits, a sign among them; pycocotools shifts in 32
        raise UserError(f"{where}: the counts of its RLE are damaged")
    values = np.add.reduceat((groups & 31) << 5 * place, first)
    values -= np.where(groups[last] & 16, 1 << 5 * (last - first + 1), 0)
    for start in (1, 2):  # each run from the fourth on is stored as a difference to the one two before
        values[start::2] = np.cumsum(values[start::2])
    return values


def _check_total(runs: NDArray[np.int64], pixels: int, where: str) -> None:
    if (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:  # a sum of longer ones could overflow
        raise UserError(f"{where}: the counts of its RLE do not add up to the {pixels} pixels of the image")


def _without_empty(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Runs that add up to something, of which only the first may be of no pixels."""
    filled = np.flatnonzero(runs)
    inside = filled % 2
    joined = np.add.reduceat(runs[filled], run_starts(inside))
    return np.append(0, joined) if inside[0] else joined
