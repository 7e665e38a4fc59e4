"""YAML of plain values, read in bounded time: what a configuration needs of it, and nothing that surprises.

A date stays a text (`OUTPUT_DIR: 2026-11-30`). Sets, binary data, dates and Python objects by their tags are refused,
and so is a key that stands twice. `*name` may repeat what `&name` marks, a few times and not within another mark:
otherwise a thousand characters can stand for billions of values.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import yaml

from sam_common.io.files import refuse_special_file

_LONGEST = 2**18
"""Bytes; PyYAML reads a hundred thousand in a second."""
_MOST_ALIASES = 32
_KINDS = {None, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))}


class NotPlain(Exception):
    """Why a text is no plain YAML; the message is one line."""


def read_yaml(path: str | os.PathLike) -> Any:
    """The content of a file in UTF-8.

    Raises:
        NotPlain: it cannot be read, or holds something else.
        UserError: it is a pipe or a device.
    """
    refuse_special_file(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LONGEST + 1)
        return parse_yaml(content.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise NotPlain(" ".join(str(error).split())) from error


def parse_yaml(text: str) -> Any:
    """The content of a text.

    Raises:
        NotPlain: it holds something else than plain values, or is longer than a configuration.
    """
    if len(text) > _LONGEST:
        raise NotPlain(f"it is longer than {_LONGEST} characters")
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise NotPlain("it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:  # numbers without end, keys that are lists
        raise NotPlain(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    yaml_constructors: ClassVar = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _KINDS}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
            for first, resolvers in self.yaml_implicit_resolvers.items()
        }
        self._marks = self._aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._marks or self._aliases > _MOST_ALIASES:
                many = f"or is one of more than {_MOST_ALIASES} repetitions"
                raise NotPlain(f"*{event.anchor} repeats a value within another mark, {many}; write the value out")
            return super().compose_node(parent, index)
        marked = getattr(event, "anchor", None) is not None
        self._marks += marked
        node = super().compose_node(parent, index)
        self._marks -= marked
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, count in keys.items() if count > 1]:
            raise NotPlain(f"the key {twice[0]} stands twice in one section; remove one")
        return super().construct_mapping(node, deep)
