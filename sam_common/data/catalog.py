"""The data sets known by name. Registration is a function call; importing this file registers nothing."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.vocabulary_file import with_synonyms
from sam_common.errors import UserError
from sam_common.method import methods

_specs: dict[str, DatasetSpec] = {}
_origin: dict[str, str] = {}  # name -> "code" | "builtin" | "config": who may replace an entry


def register(spec: DatasetSpec) -> None:
    """Makes a data set known. A name that is known already is left alone."""
    _put(spec, "code")


def get(name: str) -> DatasetSpec:
    """The spec of that name.

    Raises:
        UserError: no data set has that name; the message offers the nearest ones.
    """
    if name not in _specs:
        near = difflib.get_close_matches(name, _specs, n=3, cutoff=0.0)
        hint = f"did you mean {', '.join(near)}?" if near else "none is registered"
        raise UserError(f"unknown data set {name!r}: {hint} Your own go into DATASETS.REGISTER")
    return _specs[name]


def names() -> list[str]:
    """The names of all known data sets, sorted."""
    return sorted(_specs)


def datasets_root() -> Path:
    """The folder that holds the data sets: `$DETECTRON2_DATASETS`, or `./datasets`."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_builtin(root: str | os.PathLike | None = None) -> None:
    """Makes the builtin data sets known, at `root` (default: `datasets_root()`).

    Called again with another root, its own entries move there; a name that others registered is left alone.

    Raises:
        RuntimeError: no method has been registered.
    """
    root = Path(root) if root is not None else datasets_root()
    if not methods():
        raise RuntimeError("no method is registered: their data sets would be missing without a word")
    for method in methods():
        for spec in method.datasets(root):
            _put(spec, "builtin")


def register_from_config(entries: Iterable[Mapping[str, Any]]) -> None:
    """Makes the user's data sets known, from `DATASETS.REGISTER`.

    Each entry has a NAME, a FORMAT and the keys of that format (`Method.readers`). Any may have a VOCABULARY, a
    vocabulary file whose synonyms its classes take. All values are texts; `~` in a path is expanded.

    Raises:
        UserError: a key is missing or unknown, a value is no text, a format is unknown, or the name belongs to another
            data set.
    """
    for number, entry in enumerate(entries):
        where = f"DATASETS.REGISTER[{number}]"
        if not isinstance(entry, Mapping) or not {"NAME", "FORMAT"} <= set(entry):
            raise UserError(f"{where} must have the keys NAME and FORMAT, it is {entry!r}")
        if not all(isinstance(value, str) and value for value in entry.values()):
            raise UserError(f"{where}: every value must be a non-empty text")
        readers = {name: reader for method in methods() for name, reader in method.readers.items()}
        if entry["FORMAT"] not in readers:
            raise UserError(f"{where}: FORMAT {entry['FORMAT']!r} is unknown; known: {', '.join(readers)}")
        reader = readers[entry["FORMAT"]]
        needed, optional = reader.needed, reader.optional
        if set(entry) - {"VOCABULARY", *optional} != {"NAME", "FORMAT", *needed}:
            must, may = ", ".join(("NAME", "FORMAT", *needed)), " and ".join((*optional, "VOCABULARY"))
            raise UserError(
                f"{where} must have exactly the keys {must}, and may have {may}; it has {', '.join(map(str, entry))}"
            )
        arguments = {**needed, **optional}
        paths = {arguments[key]: os.path.expanduser(path) for key, path in entry.items() if key in arguments}
        spec = reader.make(entry["NAME"], **paths)
        if "VOCABULARY" in entry:
            spec = with_synonyms(spec, os.path.expanduser(entry["VOCABULARY"]))
        _put(spec, "config")
        if _specs[spec.name].files != spec.files:
            raise UserError(f"{where}: NAME {spec.name!r} belongs to another data set; choose another name")


def _put(spec: DatasetSpec, origin: str) -> None:
    if spec.name not in _specs or (origin != "code" and _origin[spec.name] == origin):
        _specs[spec.name], _origin[spec.name] = spec, origin
