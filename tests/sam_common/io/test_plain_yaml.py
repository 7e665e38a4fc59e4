"""YAML of plain values: what it means, and that nothing in it takes long, runs or surprises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sam_common.errors import UserError
from sam_common.io.plain_yaml import NotPlain, parse_yaml, read_yaml


def test_plain_values() -> None:
    """By hand: numbers, texts, lists, sections; a date is a text; a mark may be repeated."""
    text = "A: 2026-11-30\nB: [1, 2.5, null, true, x]\nC: &c {D: 1e-4}\nE: *c\nF: &f [1]\nG: *f"
    found = {"A": "2026-11-30", "B": [1, 2.5, None, True, "x"], "C": {"D": "1e-4"}, "E": {"D": "1e-4"}}
    assert parse_yaml(text) == {**found, "F": [1], "G": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: &a {B: *a}", "repeats a value within another mark"),
        ("".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 4) if i else 1}]\n" for i in range(14)), "repeats a value"),
        ("A: &a 1\n" + "".join(f"B{i}: *a\n" for i in range(40)), "more than 32"),
        ("A: *b", "undefined alias"),
        ("A: 1\nB: 2\nA: 3", "the key A stands twice"),
        ("A: !!set {a, b}", "constructor"),
        ("A: !!binary aGVsbG8=", "constructor"),
        ("A: !!timestamp 2026-11-30", "constructor"),
        ("A: !!python/name:os.system", "constructor"),
        ("? [1, 2]\n: 3", "unhashable"),
        ("A: " + "9" * 5000, "4300"),
        ("A: !!int x", "invalid literal"),
        ("\tA: 1", "cannot start any token"),
        ("[" * 5000, "nested too deeply"),
        ("A: \x00", "special characters"),
        ("A: 1\n" * 60_000, "longer than"),
    ],
)
def test_what_is_not_plain(text: str, message: str) -> None:
    """Error, in one line and bounded time: marks within marks, keys twice, other types by tag, numbers without end."""
    with pytest.raises(NotPlain, match=message) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"), [(b"A: \xff", "utf-8"), ("A: 1".encode("utf-16"), "utf-8"), (b"A: 1\n" * 10**6, "longer")]
)
def test_files_in_other_encodings_or_without_end(content: bytes, message: str, tmp_path: Path) -> None:
    """Error; a mark that Windows puts in front is none."""
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(NotPlain, match=message):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfA: 1")
    assert read_yaml(tmp_path / "a.yaml") == {"A": 1}


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """It would be waited for."""
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="a named pipe"):
        read_yaml(tmp_path / "a.yaml")
