"""Three segmentation methods on SAM as a Detectron2 extension that runs without it too.

    import detectron2_sam
    from detectron2.config import get_cfg

    detectron2_sam.register()               # registries and catalogs; call it once or many times
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)          # before merge_from_file
    cfg.merge_from_file("configs/possam_T.yaml")

Importing this package imports neither Detectron2 nor torch: what plugs into Detectron2 is imported when asked for.
docs/detectron2.md shows how to plug it into a project.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_PLUGIN = {
    "add_config": "config",
    "metadata_of": "datasets",
    "register": "registration",
    "register_box_detector": "detector",
    "register_visible_parts": "datasets",
    "vocabulary_of": "datasets",
    "whole_objects": "amodal_detector",
}
"""What is for users of Detectron2 -> its module in `detectron2_sam.plugin`."""

__all__ = ["__version__", "methods", *_PLUGIN]


def __getattr__(name: str) -> Any:
    if name == "methods":
        return importlib.import_module("detectron2_sam.methods")
    if name in _PLUGIN:
        return getattr(importlib.import_module(f"detectron2_sam.plugin.{_PLUGIN[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
