"""Three segmentation methods on SAM as a Detectron2 extension that runs without it too.

    import detectron2_sam
    from detectron2.config import get_cfg

    detectron2_sam.register()               # registries and catalogs; call it once or many times
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)          # before merge_from_file
    cfg.merge_from_file(detectron2_sam.get_config_file("possam_T"))

Importing this package imports neither Detectron2 nor torch: what plugs into Detectron2 is imported when asked for.
docs/detectron2.md shows how to plug it into a project.
"""

from __future__ import annotations

import importlib
from typing import Any

from sam_common import lazy_attributes

__version__ = "0.2.0"

_HOMES = {
    "add_config": "detectron2_sam.plugin.config",
    "AmodalEvaluator": "detectron2_sam.plugin.evaluation",
    "AmodalMapper": "detectron2_sam.plugin.mappers",
    "FewShotEvaluator": "detectron2_sam.plugin.evaluation",
    "FewShotMapper": "detectron2_sam.plugin.mappers",
    "get_config_file": "detectron2_sam.methods",
    "metadata_of": "detectron2_sam.plugin.datasets",
    "POSSAM_HEAD_REGISTRY": "detectron2_sam.plugin.modeling",
    "register": "detectron2_sam.plugin.registration",
    "register_box_detector": "detectron2_sam.plugin.detector",
    "register_visible_parts": "detectron2_sam.plugin.datasets",
    "SegmentationEvaluator": "detectron2_sam.plugin.evaluation",
    "SegmentationMapper": "detectron2_sam.plugin.mappers",
    "Trainer": "detectron2_sam.plugin.trainer",
    "training_records": "detectron2_sam.plugin.mappers",
    "vocabulary_of": "detectron2_sam.plugin.datasets",
    "whole_objects": "detectron2_sam.plugin.amodal_detector",
}
"""What is for users of Detectron2 -> the module that defines it."""

__all__ = ["__version__", "methods", *_HOMES]

_plugged = lazy_attributes(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    return importlib.import_module("detectron2_sam.methods") if name == "methods" else _plugged(name)
