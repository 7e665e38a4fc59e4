"""Our configuration keys in a Detectron2 cfg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron2_cfg

from detectron2_sam.methods import full_cfg
from sam_common.config import add_missing
from sam_common.errors import UserError


def add_config(cfg: CfgNode) -> None:
    """Adds our keys to a Detectron2 cfg; a key that exists, its own or another project's, stays as it is.

    Call it right after `get_cfg()`. Calling it again changes nothing.

    Raises:
        UserError: values were already changed, as `merge_from_file` does.
    """
    if "POSSAM" in cfg.MODEL:
        return
    defaults = dict(_leaves(detectron2_cfg()))
    changed = [key for key, value in _leaves(cfg) if key in defaults and defaults[key] != value]
    if changed:
        raise UserError(
            f"the cfg already has values of its own ({', '.join(changed[:3])}): call detectron2_sam.add_config(cfg) "
            "right after get_cfg(), before merge_from_file"
        )
    add_missing(cfg, full_cfg())
    _add_amodal_detector_config(cfg)


def _add_amodal_detector_config(cfg: CfgNode) -> None:
    """Adds `MODEL.AMODAL_DETECTOR`, which only the meta-architecture of that name reads."""
    keys = cfg.MODEL.AMODAL_DETECTOR = type(cfg)()
    keys.DETECTOR = "GeneralizedRCNN"  # the META_ARCHITECTURE that all other keys of the file are for
    keys.PLUG_CONFIG = "configs/plug_H_cocoa.yaml"
    keys.PLUG_WEIGHTS = ""  # a checkpoint of its training | random


def _leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
