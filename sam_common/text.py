"""Words for messages and summaries."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def some(names: Iterable[object], most: int = 3, *, between: str = ", ") -> str:
    """The first of them: "a, b, c and 2 more"."""
    texts = [str(name) for name in names]
    return between.join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def nearest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean …?)" with the known name that is most like a wrong one; "" where none is like it."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def counted(number: int, noun: str) -> str:
    """ "1 dog", "3 dogs"."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{number} {noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}s"
