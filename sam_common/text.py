"""Words for messages and summaries."""

from __future__ import annotations

from collections.abc import Iterable


def some(names: Iterable[object], most: int = 3, *, between: str = ", ") -> str:
    """The first of them: "a, b, c and 2 more"."""
    texts = [str(name) for name in names]
    return between.join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def counted(number: int, noun: str) -> str:
    """ "1 dog", "3 dogs"."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{number} {noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}s"
