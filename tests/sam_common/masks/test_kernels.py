"""What is compiled gives what NumPy gives. Without a compiler the compiled side is skipped, and that is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_common.masks import kernels


@pytest.fixture(autouse=True, scope="module")
def _compiled(_own_cache):
    if (used := kernels.kernel_in_use()) != "c++":
        pytest.skip(f"compiled passes over maps NOT tested: {used}")


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_joint_areas_equal_a_count_of_pairs(pixels, seed):
    """Equality with counting pixel by pixel, for any length of the last block; large ids, ids that nobody has."""
    random = np.random.default_rng(seed)
    listed = [np.array([0, *random.choice(2**24 - 1, 5, replace=False) + 1], np.int32) for _ in range(2)]
    places = [np.sort(random.integers(0, 5, pixels)), random.integers(0, 6, pixels)]  # long runs and short ones
    expected = np.zeros((6, 6), np.int64)
    np.add.at(expected, tuple(places), 1)
    maps = [ids[place] for ids, place in zip(listed, places, strict=True)]
    np.testing.assert_array_equal(kernels.joint_areas(*maps, *listed), expected)


def test_joint_areas_of_an_id_that_is_not_listed():
    """Edge: in either map, at the first and at the last of its pixels; nothing listed but void."""
    known, listed = np.zeros(40, np.int32), np.array([0, 7], np.int32)
    for place in (0, 17, 39):
        other = known.copy()
        other[place] = 9
        assert kernels.joint_areas(other, known, listed, listed) is None
        assert kernels.joint_areas(known, other, listed, listed) is None
    assert kernels.joint_areas(known, known, listed[:1], listed[:1]).tolist() == [[40]]
    with pytest.raises(ValueError, match="the maps are"):
        kernels.joint_areas(known, known[1:], listed, listed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_highest_is_argmax(dtype):
    """Equality with argmax over more pixels than a block holds and more classes than a byte counts: ties, NaN, ±inf."""
    random = np.random.default_rng(0)
    rows = random.integers(-3, 4, (300, 8205)).astype(dtype)
    rows[random.random(rows.shape) < 0.001] = np.nan  # of which the first wins
    rows[7, :50], rows[:, 60] = np.inf, -np.inf
    np.testing.assert_array_equal(kernels.first_highest(rows), rows.argmax(0))
    np.testing.assert_array_equal(kernels.first_highest(rows[::2, 100:200]), rows[::2, 100:200].argmax(0))
    np.testing.assert_array_equal(kernels.first_highest(rows[::-1, ::2]), rows[::-1, ::2].argmax(0))
    np.testing.assert_array_equal(kernels.first_highest(rows[::-1]), rows[::-1].argmax(0))
    with pytest.raises(ValueError, match="are int32"):
        kernels.first_highest(rows.view(np.int32))
