"""Classes and their words as a person writes them, on the command line or in a file.

    "dog|puppy, cat; sky, grass:stuff"

`;` separates groups, `,` the classes of a group and `|` the synonyms of a class; a suffix `:stuff` or `:thing` holds
for its whole group, without one a group is things. A class is called by its first synonym, unless `name =` stands
before the synonyms: "wall-brick = brick wall|wall of bricks:stuff". A file has the same grammar; its lines are groups
too, and `#` starts a comment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.errors import UserError
from sam_common.io.files import read_bytes
from sam_common.structures import Category, Vocabulary

Words = str | os.PathLike | Sequence[str] | Vocabulary
"""What `parse_vocabulary` reads."""


def parse_vocabulary(given: Words) -> Vocabulary:
    """Reads classes from a text in the grammar above, or from a file that holds one.

    Args:
        given: a text; a list of texts, each in that grammar and none a file; or a vocabulary, which stays as it is. A
            string that names an existing file or ends in `.txt`, and any `Path`, is read as a file.

    Raises:
        UserError: no words, an empty or duplicate word or name, an unknown suffix, an unreadable file, or something
            else than words.
    """
    text = str(given)
    if isinstance(given, os.PathLike) or (isinstance(given, str) and (os.path.isfile(text) or text.endswith(".txt"))):
        lines = [line.split("#")[0] for line in _read(Path(text)).splitlines()]
        places = [f"{text}, line {number}" for number in range(1, len(lines) + 1)]
    else:
        is_list = isinstance(given, Sequence) and not isinstance(given, str | bytes)
        entries: list[Any] = list(given) if is_list else [given]
        if entries and all(isinstance(entry, Category) for entry in entries):
            return tuple(entries)
        if strange := [type(entry).__name__ for entry in entries if not isinstance(entry, str)]:
            raise UserError(f"a vocabulary is a text, a list of texts or a Vocabulary; {strange[0]} is no text")
        lines = [line for entry in entries for line in entry.splitlines()]
        places = [f"vocabulary {line!r}" for line in lines]
    categories: list[Category] = []
    words: set[str] = set()
    names: set[str] = set()
    for place, line in zip(places, lines, strict=True):
        for name, synonyms, is_thing in _parse_line(line, place):
            for word in synonyms:
                if word.lower() in words:
                    raise UserError(f"{place}: the word {word!r} is given twice; each word belongs to one class, once")
                words.add(word.lower())
            if name.lower() in names:
                raise UserError(f"{place}: two classes are called {name!r}; give one of them another name")
            names.add(name.lower())
            categories.append(Category(name, synonyms, is_thing, id=len(categories)))
    if not categories:
        raise UserError(f'{text!r} holds no words; write a vocabulary like "dog|puppy, cat; sky, grass:stuff"')
    return tuple(categories)


def with_words(vocabulary: Vocabulary, words: Vocabulary, where: str) -> Vocabulary:
    """The same classes with the synonyms that another vocabulary has for them.

    A class is found by its name, of which the part before a comma is enough ("road, route" is "road"), or else by a
    word of it.

    Args:
        where: names `words` in the error, e.g. the path of its file.

    Raises:
        UserError: a class of `vocabulary` is not in `words`.
    """
    known = {word.lower(): category for category in words for word in category.synonyms}
    known |= {category.name.lower(): category for category in words}
    result = []
    for category in vocabulary:
        name = category.name.strip().lower()
        found = known.get(name) or known.get(name.split(",")[0].strip())
        if found is None:
            raise UserError(f"{where} has no line for the class {category.name!r}; add one, starting with its name")
        result.append(replace(category, synonyms=found.synonyms))
    return tuple(result)


def _read(path: Path) -> str:
    try:
        return read_bytes(path, "vocabulary file").decode("utf-8-sig")  # Windows likes to begin with a mark
    except UnicodeDecodeError as error:
        raise UserError(f"vocabulary file {path} is not UTF-8 text; save it as plain text") from error


def _parse_line(line: str, place: str) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """(name, synonyms, is_thing) of every class of a line; nothing for a blank one. A `;` may close the line."""
    line = line.strip().removesuffix(";")
    if not line:
        return
    for group in line.split(";"):
        words, colon, suffix = group.rpartition(":")
        suffix = suffix.strip().lower()
        if colon and suffix not in ("thing", "stuff"):
            raise UserError(f"{place}: the suffix {':' + suffix!r} is unknown; end the group with ':thing' or ':stuff'")
        if ":" in words:
            raise UserError(f"{place}: {group.strip()!r} has two suffixes; one ends a group, and ';' separates groups")
        for entry in (words if colon else group).split(","):
            name, equals, listed = entry.partition("=")
            synonyms = tuple(_plain(word) for word in (listed if equals else entry).split("|"))
            name = _plain(name) if equals else synonyms[0]
            if not all((name, *synonyms)):
                raise UserError(
                    f"{place}: there is an empty word in {group.strip()!r}; remove the extra ',', '|' or '='"
                )
            yield name, synonyms, suffix != "stuff" or not colon


def _plain(word: str) -> str:
    return " ".join(word.split())


def with_synonyms(spec: DatasetSpec, words: str | os.PathLike) -> DatasetSpec:
    """The same data set, whose classes have the synonyms of a vocabulary file, read when they are asked for."""

    def load_vocabulary() -> Vocabulary:
        return with_words(spec.load_vocabulary(), parse_vocabulary(Path(words)), str(words))

    return replace(spec, load_vocabulary=load_vocabulary, files={**spec.files, "vocabulary": str(words)})
