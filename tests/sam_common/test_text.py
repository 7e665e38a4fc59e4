"""Words for messages and summaries."""

from __future__ import annotations

import pytest

from sam_common.text import counted, some


def test_some_of_many_names() -> None:
    """Up to `most` are named, the others counted; anything with a text will do."""
    assert some([]) == "" and some("ab") == "a, b" and some("abc") == "a, b, c"
    assert some("abcd") == "a, b, c and 1 more" and some(range(7), most=5) == "0, 1, 2, 3, 4 and 2 more"


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (1, "dog", "1 dog"),
        (0, "dog", "0 dogs"),
        (2, "bus", "2 buses"),
        (2, "bench", "2 benches"),
        (3, "puppy", "3 puppies"),
        (3, "toy", "3 toys"),
    ],
)
def test_nouns_are_counted(number: int, noun: str, words: str) -> None:
    """The plurals that names of classes need."""
    assert counted(number, noun) == words
