"""The list of methods. A fourth one is a folder, and a line here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from sam_common import method
from sam_common.config import CfgNode, get_cfg
from sam_common.data import catalog

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


def full_cfg(config_file: str | os.PathLike = "", options: Sequence[str] = ()) -> CfgNode:
    """The shared keys and those of every method, with the values of a configuration file, and of KEY, VALUE, ….

    Raises:
        UserError: the file or an option cannot be used.
    """
    cfg = get_cfg()
    for each in methods():
        each.add_config(cfg)
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(options)
    return cfg
