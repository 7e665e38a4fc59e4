"""Values in JSON files of COCO's formats, as tools write them: 64, 64.0 or "64"; one clear line for any other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sam_common.errors import UserError

_FLAGS = {"0": False, "false": False, "1": True, "true": True}


def field(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """entry[key], where `entry` must be a mapping that has it with a value of this kind."""
    if not isinstance(entry, dict) or key not in entry:
        raise UserError(f"{where}: {key!r} is missing; is this a JSON of that format?")
    if not isinstance(entry[key], kind):
        raise UserError(f"{where}: {key!r} is of the wrong type, {type(entry[key]).__name__}")
    if isinstance(entry[key], str):
        check_text(entry[key], f"{where}: {key!r}")
    return entry[key]


def number(entry: Any, key: str, where: str) -> int:
    """entry[key] as a whole number, be it written 64, 64.0 or "64"."""
    value = field(entry, key, object, where)
    whole = whole_number(value)
    if whole is None:
        raise UserError(f"{where}: {key!r} is {value!r}, it must be a whole number")
    return whole


def whole_number(value: Any) -> int | None:
    """A value as a whole number; None where it is none."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,15}(\.0+)?\s*", value):
        return int(float(value))
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return None


def flag(entry: Any, key: str, where: str, default: bool | None = None) -> bool:
    """entry[key] as a flag, be it written 1, true, 1.0, "1" or "true"; `default` where it is missing or null."""
    value = entry.get(key) if default is not None else field(entry, key, object, where)
    if value is None and default is not None:
        return default
    text = str(value).strip().lower().removesuffix(".0")
    if text not in _FLAGS:
        raise UserError(f"{where}: {key!r} is {value!r}, it must be 0 or 1")
    return _FLAGS[text]


def identifier(entry: Any, key: str, where: str) -> int | str:
    """entry[key] as an id, a whole number or a text."""
    value = field(entry, key, object, where)
    return field(entry, key, str, where) if isinstance(value, str) else number(entry, key, where)


def known_id(entry: Any, key: str, records: Mapping[int | str, Any], where: str) -> int | str:
    """The id of an image that entry[key] names: where it is none as it stands, 7 and "7" are the same.

    Raises:
        UserError: no image has that id.
    """
    given = identifier(entry, key, where)
    other = whole_number(given) if isinstance(given, str) else str(given)
    if given in records:
        return given
    if other is not None and other in records:
        return other
    raise UserError(f"{where}: images has no entry with the id {given!r}")


def check_text(text: str, where: str) -> None:
    """JSON can hold what no file name, no terminal and no tokenizer takes: control characters, half characters."""
    if any(character < " " or "\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{where} is {text!r}, with characters that are no text")
