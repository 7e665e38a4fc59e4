"""Our configuration keys in a Detectron2 cfg."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron2_cfg

from detectron2_sam.methods import full_cfg, leaves
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
    defaults = dict(leaves(detectron2_cfg()))
    changed = [key for key, value in leaves(cfg) if key in defaults and defaults[key] != value]
    if changed:
        raise UserError(
            f"the cfg already has values of its own ({', '.join(changed[:3])}): call detectron2_sam.add_config(cfg) "
            "right after get_cfg(), before merge_from_file"
        )
    add_missing(cfg, full_cfg())
    cfg.MODEL.SAM.OUT_FEATURES = ["p2", "p3", "p4", "p5", "p6"]  # of SamViTBackbone: p2 … p7, or res2 … res5
    keys = cfg.MODEL.AMODAL_DETECTOR = type(cfg)()  # only the meta-architecture of that name reads them
    keys.DETECTOR = "GeneralizedRCNN"  # the META_ARCHITECTURE that all other keys of the file are for
    keys.PLUG_CONFIG = "configs/plug_H_cocoa.yaml"
    keys.PLUG_WEIGHTS = ""  # a checkpoint of its training | random
