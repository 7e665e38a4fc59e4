"""Words for messages and summaries."""

from __future__ import annotations

import logging

import pytest

from sam_common.errors import Interrupted, UserError
from sam_common.text import LineFormatter, counted, escaped, one_line, some, warn


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


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("a\nerror: b.png", r"a\nerror: b.png"),
        ("\x1b[2Ja\rb\x9b", r"\x1b[2Ja\rb\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("caf\udce9.jpg", r"caf\udce9.jpg"),
        ("été ✓ 猫.jpg", "été ✓ 猫.jpg"),
    ],
)
def test_a_message_is_one_line(quoted: str, shown: str, capsys: pytest.CaptureFixture) -> None:
    """Names with line breaks, codes of terminals, turned directions and half characters, wherever one is told."""
    assert str(UserError(f"{quoted} is none; delete it")) == f"{shown} is none; delete it"
    assert str(Interrupted(quoted, 15)) == shown
    warn(quoted)
    assert capsys.readouterr().err == f"warning: {shown}\n"
    record = logging.LogRecord("a", logging.WARNING, "", 0, "%s is none", (quoted,), None)
    assert LineFormatter("> %(message)s").format(record) == f"> {shown} is none"


def test_a_table_that_is_logged_keeps_its_lines() -> None:
    """Only control characters are escaped in what is no warning."""
    record = logging.LogRecord("a", logging.INFO, "", 0, "a\tb\n1\t2\x1b", (), None)
    assert LineFormatter().format(record) == "a\tb\n1\t2\\x1b"


def test_a_long_message_keeps_its_remedy() -> None:
    """Bounded, also where each character becomes ten: the file first, the remedy last."""
    message = one_line(f"a.json: {chr(7) * 100_000}; delete it")
    assert message.startswith("a.json: ") and message.endswith("; delete it") and len(message) == 800
    assert one_line("x" * 800) == "x" * 800 and escaped("a\nb", keep="\n") == "a\nb"
