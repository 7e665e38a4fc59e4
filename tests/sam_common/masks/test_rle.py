"""All labels of a map at once are encoded as each one alone is by pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sam_common.masks.rle import encode_labels, encode_mask, run_starts
from sam_common.native import KERNELS_VARIABLE


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
