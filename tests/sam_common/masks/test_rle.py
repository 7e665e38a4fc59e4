"""Masks as COCO's files hold them: equal to pycocotools where they are sound, one clear line where they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as codec

from sam_common.boxes.boxes import tight_boxes, xywh
from sam_common.errors import UserError
from sam_common.io.native import KERNELS_VARIABLE
from sam_common.masks.rle import (
    area_and_box,
    as_rle,
    checked_segmentation,
    decode_segmentation,
    difference,
    encode_labels,
    encode_mask,
    run_starts,
    segmentation_extent,
)


def one_by_one(labels):
    return {int(label): encode_mask(labels == label) for label in np.unique(labels)}


@settings(deadline=None, max_examples=100)
@given(arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-2, 3)))
def test_small_maps(labels):
    """Byte for byte, in the same order: labels at the first and the last pixel, single pixels, one label."""
    found = encode_labels(labels)
    assert found == one_by_one(labels) and list(found) == sorted(found)


@pytest.mark.parametrize("kernels", ["", "pytorch"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_large_map(dtype, kernels, monkeypatch):
    """Byte for byte where numbers need up to four characters and differences are negative: blocks, stripes, noise."""
    monkeypatch.setenv(KERNELS_VARIABLE, kernels)
    labels = torch.arange(60).view(6, 10).repeat_interleave(80, 0).repeat_interleave(64, 1)
    labels[200:300] = torch.randint(0, 60, (100, 640))
    labels[:, 500] = 250
    labels = labels.to(dtype)
    assert encode_labels(labels) == one_by_one(labels.numpy())
    assert encode_labels(labels.T) == one_by_one(labels.T.numpy())


def test_no_pixels():
    """Edge: a map without pixels has no labels."""
    assert encode_labels(np.zeros((0, 5), dtype=np.int64)) == {}


def test_run_starts_by_hand():
    """Derived by hand: the second map changes at 2, the first at 3."""
    assert run_starts(np.array([1, 1, 1, 2]), np.array([0, 0, 5, 5])).tolist() == [0, 2, 3]
    assert run_starts(np.zeros(0)).tolist() == []


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (40, 60), (500, 700)])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.9, 1.0])
def test_run_lengths_as_pycocotools(size: tuple[int, int], density: float) -> None:
    """Equality with the reference's encoder: noise, blobs with runs of many digits, empty and full masks."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(*size, generator=generator) < density
    blobs = noise[: size[0] // 9 + 1, : size[1] // 9 + 1].repeat_interleave(9, 0).repeat_interleave(9, 1)
    for mask in (noise, blobs[: size[0], : size[1]]):
        checked = checked_segmentation(encode_mask(mask), *size, "here")
        assert torch.equal(decode_segmentation(checked, *size, "here"), mask)


def test_uncompressed_run_lengths() -> None:
    """Derived by hand: columns first, the first run is outside; it becomes the compressed form."""
    checked = checked_segmentation({"size": [2, 3], "counts": [1, 3, 2]}, 2, 3, "here")
    assert checked == encode_mask(torch.tensor([[0, 1, 0], [1, 1, 0]]))


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
        ([1, 2, 3, 4, 5], "a polygon is a list"),
        ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], "a polygon is a list"),
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
        ({"size": [3, 4], "counts": [True, 11]}, "whole numbers"),
        ({"size": [3, 4], "counts": [10**30]}, "whole numbers"),
        ({"size": [3, 4], "counts": "PPPPPPP0"}, "damaged"),  # 0 and 40 bits, 32 of which pycocotools shifts in
        ({"size": [3, 4], "counts": "oooool0ooooool0"}, "damaged"),
        ([[0, 0, 99_999, 0, 0, 1]], "edges of its polygons"),
        ([[0, 0, 4, 0] * 50], "edges of its polygons"),
        ([[0, 0, 4, 0, 4, 1]] * 50, "edges of its polygons"),
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
    assert torch.equal(decode_segmentation(encode_mask(mask), 3, 4, "here"), mask)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (13, 7)])
def test_extent(size: tuple[int, int], density: float) -> None:
    """Equality with the decoded mask: its tight box and its pixels, of noise, of full and of empty masks."""
    for seed in range(5):
        mask = torch.rand(*size, generator=torch.Generator().manual_seed(seed)) < density
        box, area = segmentation_extent(encode_mask(mask), *size)
        assert {"area": area, "bbox": box} == area_and_box(mask) == area_and_box(mask.numpy())
        assert (box, area) == (xywh(tight_boxes(mask[None])[0].tolist()), mask.sum())


def test_extent_of_polygons_and_odd_runs() -> None:
    """Derived by hand: polygons, one beyond the image; runs of length zero inside the mask, which touch nothing."""
    assert segmentation_extent([[1, 1, 5, 1, 5, 4, 1, 4], [6, 0, 20, 0, 20, 2, 6, 2]], 6, 8) == (
        [1, 0, 7, 4],
        16,
    )
    assert segmentation_extent([], 6, 8) == ([0, 0, 0, 0], 0)
    odd = checked_segmentation({"size": [6, 8], "counts": [0, 0, 20, 2, 10, 0, 16]}, 6, 8, "here")
    assert segmentation_extent(odd, 6, 8) == ([3, 2, 1, 2], 2)


def test_runs_of_no_pixels_join_their_neighbours() -> None:
    """Derived by hand, both forms: pycocotools has room for as many runs as pixels, and writes on behind it."""
    mask = torch.tensor([[0, 1], [1, 1]]).bool()
    sound = encode_mask(mask)
    for counts in ([1, 3, *[0] * 2001], [1, 0, 0, 3], [0, 0, 1, 1, *[0] * 801, 2], [1, 3, 0]):
        checked = checked_segmentation({"size": [2, 2], "counts": counts}, 2, 2, "here")
        assert checked == sound, counts
    text = {"size": [2, 2], "counts": "13" + "0" + "M" + "0" * 800}  # 1, 3, 0, then 3 - 3 and zeros for ever
    assert checked_segmentation(text, 2, 2, "here") == sound
    full = checked_segmentation({"size": [2, 2], "counts": [0, 4]}, 2, 2, "here")
    assert full == encode_mask(torch.ones(2, 2)) and full["counts"] == "04"


def test_sums_that_overflow_and_images_without_end() -> None:
    """Edge: runs whose sum is that of the pixels modulo 2⁶⁴ are refused, as is an image that no memory holds."""
    runs = [2**62, 2**62, 2**62, 2**62 + 12]
    with pytest.raises(UserError, match="here"):
        checked_segmentation({"size": [3, 4], "counts": runs}, 3, 4, "here")
    for value in ([], {"size": [2**20, 2**20], "counts": [2**40]}):
        with pytest.raises(UserError, match=r"here.* 1048576 × 1048576"):
            checked_segmentation(value, 2**20, 2**20, "here")


def test_many_polygons_are_merged_as_one_after_the_other() -> None:
    """Equality with the reference, over several rounds of merging; no polygon is the mask of no pixels."""
    places = torch.randint(0, 20, (40, 2), generator=torch.Generator().manual_seed(0)).tolist()
    polygons = [[x, y, x + 3, y, x + 3, y + 2.5] for x, y in places]
    reference = codec.merge(codec.frPyObjects(polygons, 24, 25))
    assert as_rle(polygons, 24, 25) == {"size": [24, 25], "counts": reference["counts"].decode()}
    assert as_rle([], 24, 25) == encode_mask(torch.zeros(24, 25))


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_difference(density: float) -> None:
    """Equality with decoded masks, byte for byte: noise, nothing and everything on both sides."""
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(7, 9, generator=generator) < 0.5
    for second in (torch.rand(7, 9, generator=generator) < density, first, ~first):
        for one, other in ((first, second), (second, first)):
            found = difference(encode_mask(one), encode_mask(other), 7, 9, "here")
            assert found == encode_mask(one & ~other)


def test_records_of_other_readers() -> None:
    """Error: polygons that no reader of ours has checked are not drawn either."""
    with pytest.raises(UserError, match="there.*edges"):
        decode_segmentation([[0, 0, 99_999, 0, 0, 99_999]], 8, 9, "there")
