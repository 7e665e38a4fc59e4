"""The list of methods. A fourth one is a folder, and a line here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from sam_common import method
from sam_common.config import CfgNode, UnknownKeyError, find_config, get_cfg
from sam_common.data import catalog
from sam_common.errors import UserError

METHODS = (
    "possam.method",
    "plug.method",
    "amsam.method",
)
"""Modules, each with a `METHOD`."""


def methods() -> tuple[method.Method, ...]:
    """All of them, known to the engine from now on; calling it again changes nothing."""
    for name in METHODS:
        method.register(import_module(name).METHOD)
    return method.methods()


def register_datasets(root: str | os.PathLike | None = None) -> None:
    """Makes the data sets of every method known by name; see `catalog.register_builtin`."""
    methods()
    catalog.register_builtin(root)


def full_cfg(config_file: str | os.PathLike | None = None, options: Sequence[str] = ()) -> CfgNode:
    """The shared keys and those of every method, with the values of a configuration file, and of KEY, VALUE, ….

    Raises:
        UserError: the file or an option cannot be used.
    """
    cfg = get_cfg()
    for each in methods():
        each.add_config(cfg)
    try:
        if config_file is not None:
            cfg.merge_from_file(config_file)
        cfg.merge_from_list(options)
    except UnknownKeyError as error:
        raise UserError(f"{error}; Detectron2's own keys need `detectron2-sam train --engine detectron2`") from error
    return cfg


def own_cfg(cfg: CfgNode) -> CfgNode:
    """Of a cfg that may hold the keys of other methods and of Detectron2, the shared ones and those of its own method.

    Raises:
        UserError: `MODEL.META_ARCHITECTURE` is unknown.
    """
    own = get_cfg()
    method.method_of(cfg).add_config(own)
    return _values_of(own, cfg)


def _values_of(keys: CfgNode, cfg: CfgNode) -> CfgNode:
    """Those keys with the values that they have in `cfg`."""
    kept = {key: _values_of(value, cfg[key]) if isinstance(value, CfgNode) else cfg[key] for key, value in keys.items()}
    return CfgNode(kept)


def get_config_file(name: str | os.PathLike) -> str:
    """The path of a configuration that ships: `possam_T`, or the LazyConfig `detectron2/possam_T.py`.

    Raises:
        UserError: there is none of that name.
    """
    return str(find_config(name))


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(SECTION.KEY, value) of every key of a configuration."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
