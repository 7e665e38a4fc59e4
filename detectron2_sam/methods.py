"""The list of methods. A fourth one is a folder, and a line here."""

from __future__ import annotations

from importlib import import_module

from sam_common import method
from sam_common.config import CfgNode, get_cfg

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


def full_cfg() -> CfgNode:
    """The shared keys and those of every method."""
    cfg = get_cfg()
    for each in methods():
        each.add_config(cfg)
    return cfg
