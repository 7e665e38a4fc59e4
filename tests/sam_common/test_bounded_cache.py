"""What is remembered, and what is forgotten first."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

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


def test_a_value_that_is_put_twice_counts_once() -> None:
    """As when two threads compute it at once; else the cache would shrink for ever."""
    cache: BoundedCache[int] = BoundedCache(2)
    for key in "aaab":
        cache.put(key, 0, 1)
    assert cache.get("a") == cache.get("b") == 0


def test_threads_share_a_cache() -> None:
    """Invariant: whatever the order, no thread fails, and what is kept fits."""
    cache: BoundedCache[int] = BoundedCache(3)

    def use(start: int) -> None:
        for number in range(start, start + 2000):
            key = str(number % 7)
            if cache.get(key) is None:
                cache.put(key, number, 1)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))
    assert sum(cache.get(str(key)) is not None for key in range(7)) == 3


def test_a_cache_can_be_copied() -> None:
    """Models hold them, which trainers copy."""
    cache: BoundedCache[int] = BoundedCache(2)
    cache.put("a", 1, 1)
    assert copy.deepcopy(cache).get("a") == 1
