"""The data sets known by name. Registration is a function call; importing this file registers nothing."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.generated import generated_specs
from sam_common.errors import UserError

_specs: dict[str, DatasetSpec] = {}
_origin: dict[str, str] = {}  # name -> "code" | "builtin" | "config": who may replace an entry

_READERS = {"coco_panoptic": coco_panoptic_spec}
_ENTRY_KEYS = ("NAME", "FORMAT", "JSON", "IMAGES", "PANOPTIC")


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
    """
    root = Path(root) if root is not None else datasets_root()
    for spec in (*_coco(root), *_ade20k(root), *generated_specs(root)):
        _put(spec, "builtin")


def register_from_config(entries: Iterable[Mapping[str, Any]]) -> None:
    """Makes the user's data sets known, from `DATASETS.REGISTER`.

    Each entry has exactly the keys NAME, FORMAT (coco_panoptic), JSON, IMAGES and PANOPTIC, all strings; `~` in a path
    is expanded.

    Raises:
        UserError: a key is missing or unknown, a value is no text, a format is unknown, or the name belongs to another
            data set.
    """
    for number, entry in enumerate(entries):
        where = f"DATASETS.REGISTER[{number}]"
        if not isinstance(entry, Mapping) or set(entry) != set(_ENTRY_KEYS):
            found = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else repr(entry)
            raise UserError(f"{where} must have exactly the keys {', '.join(_ENTRY_KEYS)}, it has {found or 'none'}")
        if not all(isinstance(value, str) and value for value in entry.values()):
            raise UserError(f"{where}: every value must be a non-empty text")
        if entry["FORMAT"] not in _READERS:
            raise UserError(f"{where}: FORMAT {entry['FORMAT']!r} is unknown; known: {', '.join(_READERS)}")
        paths = {key: os.path.expanduser(entry[key]) for key in ("JSON", "IMAGES", "PANOPTIC")}
        spec = _READERS[entry["FORMAT"]](
            entry["NAME"], json_file=paths["JSON"], images=paths["IMAGES"], panoptic=paths["PANOPTIC"]
        )
        _put(spec, "config")
        if _specs[spec.name].files != spec.files:
            raise UserError(f"{where}: NAME {spec.name!r} belongs to another data set; choose another name")


def _put(spec: DatasetSpec, origin: str) -> None:
    if spec.name not in _specs or (origin != "code" and _origin[spec.name] == origin):
        _specs[spec.name], _origin[spec.name] = spec, origin


def _coco(root: Path) -> list[DatasetSpec]:
    coco = root / "coco"
    return [
        coco_panoptic_spec(
            f"coco_2017_{split}_panoptic",
            json_file=coco / "annotations" / f"panoptic_{split}2017.json",
            images=coco / f"{split}2017",
            panoptic=coco / f"panoptic_{split}2017",
        )
        for split in ("train", "val")
    ]


def _ade20k(root: Path) -> list[DatasetSpec]:
    ade = root / "ADEChallengeData2016"
    return [
        coco_panoptic_spec(
            f"ade20k_panoptic_{split}",
            json_file=ade / f"ade20k_panoptic_{split}.json",
            images=ade / "images" / folder,
            panoptic=ade / f"ade20k_panoptic_{split}",
        )
        for split, folder in (("train", "training"), ("val", "validation"))
    ]
