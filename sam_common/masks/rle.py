"""Masks in COCO's compressed run-length encoding, as annotation and result files hold them: {"size", "counts"}.

An encoding lists how many pixels, column after column, are 0, then how many are 1, then 0 again, and so on. From the
fourth number on it is the difference to the number two places before. Five bits at a time, lowest first, each with a
sixth that says whether more follow, become characters from "0" on; the last of them carries the sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as codec
from torch import Tensor

from sam_common.masks import kernels as map_kernels


def encode_mask(mask: Tensor | np.ndarray) -> dict[str, Any]:
    """A mask [H, W] of bool or 0 and 1 as {"size": [H, W], "counts": str}, which JSON can hold."""
    rle = codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode_labels(labels: Tensor | np.ndarray) -> dict[int, dict[str, Any]]:
    """Every label of a map [H, W] of integers on its own: label -> `encode_mask(labels == label)`, in rising order.

    All of them in one pass over the runs of equal labels; the bytes are those of `encode_mask`.
    """
    labels = np.asarray(labels)
    if labels.size and labels.min() >= 0 and labels.max() < 2**16:
        labels = labels.astype(np.uint16)  # moved and sorted in a fraction of the time
    columns = labels.ravel(order="F")
    starts = run_starts(columns)
    ends = np.append(starts[1:], columns.size)
    order = np.argsort(columns[starts], kind="stable")  # label after label, the runs of each where they were
    starts, ends, owners = starts[order], ends[order], columns[starts][order]
    first = np.flatnonzero(np.append(True, owners[1:] != owners[:-1])) if owners.size else starts
    before = np.append(0, ends[:-1])
    before[first] = 0
    counts = np.stack([starts - before, ends - starts], axis=1)  # pixels that are not the label's, and that are

    # A label's numbers: both of every run, and what is left behind the last one, if anything is.
    last = np.append(first[1:], owners.size)[: first.size] - 1
    rest = columns.size - ends[last]
    lengths = 2 * (last - first + 1) + (rest > 0)
    numbers = np.insert(counts.ravel(), 2 * (last + 1)[rest > 0], rest[rest > 0])
    texts = map_kernels.rle_characters(numbers, lengths) or _characters(numbers, lengths)
    size = [int(side) for side in labels.shape]
    return {int(label): {"size": size.copy(), "counts": text} for label, text in zip(owners[first], texts, strict=True)}


def run_starts(*maps: np.ndarray) -> np.ndarray:
    """Where a run of equal pixels begins: the indices, rising from 0, at which one of these flat maps changes."""
    if not maps[0].size:
        return np.zeros(0, dtype=np.int64)
    changes = maps[0][1:] != maps[0][:-1]
    for other in maps[1:]:
        changes |= other[1:] != other[:-1]
    return np.append(0, np.flatnonzero(changes) + 1)


def _characters(numbers: np.ndarray, lengths: np.ndarray) -> list[str]:
    """The text of each encoding, `lengths` of the numbers after each other."""
    begin = np.cumsum(lengths) - lengths
    place = np.arange(numbers.size) - np.repeat(begin, lengths)
    rest = numbers.astype(np.int32)  # of an image with fewer than 2³¹ pixels
    differs = np.flatnonzero(place > 2)
    rest[differs] -= numbers[differs - 2]
    columns, present = [], []
    more = np.ones(numbers.size, dtype=bool)
    while more.any():
        bits = rest & 31
        rest >>= 5
        present.append(more)
        more = more & np.where(bits & 16, rest != -1, rest != 0)
        columns.append((bits | (more << 5)) + 48)
    if not columns:
        return []
    written = np.stack(present, axis=1)
    text = np.stack(columns, axis=1).astype(np.uint8)[written].tobytes().decode("ascii")
    ends = np.cumsum(np.add.reduceat(written.sum(1), begin)).tolist()
    return [text[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
