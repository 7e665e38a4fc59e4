"""Words for messages and summaries, and messages that are one line, whatever they quote."""

from __future__ import annotations

import difflib
import logging
import reprlib
import sys
from collections.abc import Iterable

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2

_LONGEST, _END = 800, 300
"""Characters of a message, and how many of them are its end, where the remedy is."""


def one_line(text: str) -> str:
    """A message of bounded length that a terminal shows as it is.

    Names of files, and what stands in them, may hold line breaks, codes that move the cursor, marks that turn the
    direction of writing, and halves of characters.
    """
    return _shortened(escaped(_shortened(text)))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - _END - 3]} … {text[-_END:]}"


def escaped(text: str, keep: str = "") -> str:
    """A text with each character that cannot be printed, except those to keep, as its escape sequence in Python."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else repr(character)[1:-1] for character in text
    )


def warn(message: str) -> None:
    """Prints a warning of a command, on standard error."""
    print(f"warning: {one_line(message)}", file=sys.stderr)


class LineFormatter(logging.Formatter):
    """Makes a warning one line; other messages may be tables."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        is_table = record.levelno < logging.WARNING
        record.message = escaped(record.message, "\n\t") if is_table else one_line(record.message)
        return super().formatMessage(record)


def some(names: Iterable[object], most: int = 3, *, between: str = ", ") -> str:
    """The first of them: "a, b, c and 2 more"."""
    texts = [str(name) for name in names]
    return between.join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def first_line(error: Exception) -> str:
    """Of what an exception says, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def shown(value: object) -> str:
    """A value of a foreign file in few characters. Of lists in lists that are one list, `repr` would never end."""
    return _SHORT.repr(value)


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
