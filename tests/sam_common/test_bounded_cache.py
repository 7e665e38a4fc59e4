"""What is remembered, and what is forgotten first."""

from __future__ import annotations

from sam_common.bounded_cache import BoundedCache


def test_what_was_asked_for_longest_ago_goes_first() -> None:
    """Two of three values fit: "a" was asked for after "b", so "b" goes."""
    cache: BoundedCache[int] = BoundedCache(2)
    for value, key in enumerate("ab"):
        cache.put(key, value, 1)
    assert cache.get("a") == 0
    cache.put("c", 2, 1)
    assert [cache.get(key) for key in "abc"] == [0, None, 2]


def test_a_value_that_is_too_large_is_kept_alone() -> None:
    """It is the last one asked for, so it will be asked for again."""
    cache: BoundedCache[int] = BoundedCache(2)
    cache.put("a", 0, 1)
    cache.put("b", 1, 5)
    assert cache.get("a") is None and cache.get("b") == 1
