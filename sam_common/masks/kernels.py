"""Passes over maps of pixels that `kernels.cpp` makes sooner than NumPy, where there is a compiler.

Each function gives what its caller would otherwise compute itself, to the last bit, and None where nothing is compiled
(`native.py` has the reasons) or where the caller has to look for a mistake. None holds the interpreter's lock.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from sam_common.io.native import NoKernel, load

_SOURCE = Path(__file__).with_suffix(".cpp")


def kernel_in_use() -> str:
    """What runs, for a log: `c++`, or `numpy` and why. Compiles what was not yet."""
    try:
        load(_SOURCE)
    except NoKernel as reason:
        return f"numpy ({reason})"
    return "c++"


def unfilter_rgb(data: bytes, height: int, width: int) -> np.ndarray | None:
    """The inflated data of an 8-bit RGB PNG, H rows of a filter's number and 3 W bytes, as ids R + 256 G + 65536 B.

    Returns:
        int32 [H, W]; None also where there is no such filter.
    """
    if (library := _library()) is None:
        return None
    if len(data) != height * (1 + 3 * width):
        raise ValueError(f"{len(data)} bytes are not {width}×{height} pixels")
    ids = np.empty((height, width), dtype=np.int32)
    failed = library.unfilter_rgb(ctypes.c_char_p(data), _integer(height), _integer(width), _pointer(ids))
    return None if failed else ids


def joint_areas(
    true_ids: np.ndarray, predicted_ids: np.ndarray, true_listed: np.ndarray, predicted_listed: np.ndarray
) -> np.ndarray | None:
    """Pixels shared by every pair of segments.

    Args:
        true_ids, predicted_ids: int32 of one size, ids.
        true_listed, predicted_listed: [G] and [P] int32, the ids there may be, distinct.

    Returns:
        int64 [G, P]; None also where an id is not listed.
    """
    if (library := _library()) is None:
        return None
    maps = [np.ascontiguousarray(ids, dtype=np.int32) for ids in (true_ids, predicted_ids)]
    lists = [np.ascontiguousarray(ids, dtype=np.int32) for ids in (true_listed, predicted_listed)]
    if maps[0].size != maps[1].size:
        raise ValueError(f"the maps are {true_ids.shape} and {predicted_ids.shape}")
    areas = np.zeros((lists[0].size, lists[1].size), dtype=np.int64)
    listed = [argument for ids in lists for argument in (_pointer(ids), _integer(ids.size))]
    failed = library.joint_areas(*map(_pointer, maps), _integer(maps[0].size), *listed, _pointer(areas))
    return None if failed else areas


def first_highest(rows: np.ndarray) -> np.ndarray | None:
    """`rows.argmax(axis=0)` of [C, N] float32 or float64; int64 [N]. Rows not whole in memory are copied."""
    if (library := _library()) is None:
        return None
    if rows.dtype not in (np.float32, np.float64):
        raise ValueError(f"the scores are {rows.dtype}")
    if rows.strides[1] != rows.itemsize:
        rows = np.ascontiguousarray(rows)
    best = np.empty(rows.shape[1], dtype=np.int64)
    shape = (*rows.shape, rows.strides[0] // rows.itemsize)
    getattr(library, f"first_highest_{rows.dtype}")(_pointer(rows), *map(_integer, shape), _pointer(best))
    return best


def _library() -> ctypes.CDLL | None:
    try:
        return load(_SOURCE)
    except NoKernel:
        return None


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


_integer = ctypes.c_int64
