"""Polygons and run lengths: equal to pycocotools where they are sound, one clear line where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as codec

from sam_common.errors import UserError
from sam_common.masks.coco_masks import checked_segmentation, decode_segmentation


def _rle(mask: torch.Tensor) -> dict:
    rle = codec.encode(np.asfortranarray(mask.numpy(), np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 60), (500, 700)])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.9, 1.0])
def test_run_lengths_as_pycocotools(size: tuple[int, int], density: float) -> None:
    """Equality with the reference's encoder: noise, blobs with runs of many digits, empty and full masks."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(*size, generator=generator) < density
    blobs = noise[: size[0] // 9 + 1, : size[1] // 9 + 1].repeat_interleave(9, 0).repeat_interleave(9, 1)
    for mask in (noise, blobs[: size[0], : size[1]]):
        checked = checked_segmentation(_rle(mask), *size, "here")
        assert torch.equal(decode_segmentation(checked, *size, "here"), mask)


def test_uncompressed_run_lengths() -> None:
    """Derived by hand: columns first, the first run is outside; it becomes the compressed form."""
    checked = checked_segmentation({"size": [2, 3], "counts": [1, 3, 2]}, 2, 3, "here")
    assert checked == _rle(torch.tensor([[0, 1, 0], [1, 1, 0]]))


def test_polygons_as_pycocotools() -> None:
    """Equality with the reference: the union of polygons, one of them partly outside; two points cover nothing."""
    polygons = [[1, 1, 6, 1, 6, 4, 1, 4], [4.5, 2.5, 20, 3, 5, 30], [0, 0, 3, 3]]
    checked = checked_segmentation(polygons, 8, 10, "here")
    reference = codec.decode(codec.frPyObjects(polygons[:2], 8, 10)).any(-1)
    assert torch.equal(decode_segmentation(checked, 8, 10, "here"), torch.from_numpy(reference))
    assert not decode_segmentation(checked_segmentation(polygons[2:], 8, 10, "here"), 8, 10, "here").any()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("polygon", "must be a list of polygons, or an RLE"),
        ({"counts": "1"}, "must be a list of polygons, or an RLE"),
        ([1, 2, 3, 4, 5, 6], "a polygon is a list"),
        ([[1, 2, 3, 4, 5]], "a polygon is a list"),
        ([[1, 2, 3, 4, 5, "6"]], "the coordinate '6'"),
        ([[1, 2, 3, 4, 5, float("nan")]], "the coordinate nan"),
        ([[1, 2, 3, 4, 5, 1e9]], "the coordinate 1000000000.0, which is no place in an image"),
        ({"size": [4, 3], "counts": [12]}, r"size is \[4, 3\], that of the image \[3, 4\]"),
        ({"size": [3, 4], "counts": [11]}, "do not add up to the 12 pixels"),
        ({"size": [3, 4], "counts": [-1, 13]}, "whole numbers from 0 on"),
        ({"size": [3, 4], "counts": [12.0]}, "whole numbers from 0 on"),
        ({"size": [3, 4], "counts": 12}, "a text or a list of numbers"),
        ({"size": [3, 4], "counts": ""}, "are damaged"),
        ({"size": [3, 4], "counts": "oooo"}, "are damaged"),
        ({"size": [3, 4], "counts": "é"}, "are damaged"),
        ({"size": [3, 4], "counts": "P" * 9 + "0"}, "are damaged"),
        ({"size": [3, 4], "counts": "11"}, "do not add up"),
        ({"size": [3, 4], "counts": "=O"}, "do not add up"),
    ],
)
def test_damaged(value: object, message: str) -> None:
    """Error: another form, a coordinate that is none or far off, another size, counts that are no runs."""
    with pytest.raises(UserError, match="here: .*" + message):
        checked_segmentation(value, 3, 4, "here")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_any_text_is_runs_or_an_error(counts: str) -> None:
    """Invariant: whatever the counts are, they give a mask that encodes to the same runs, or a UserError."""
    try:
        checked = checked_segmentation({"size": [3, 4], "counts": counts}, 3, 4, "here")
    except UserError:
        return
    mask = decode_segmentation(checked, 3, 4, "here")
    assert mask.shape == (3, 4)
    assert torch.equal(decode_segmentation(_rle(mask), 3, 4, "here"), mask)
