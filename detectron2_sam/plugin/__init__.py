"""The project inside Detectron2: its models, backbone, head and data sets under Detectron2's names.

    import detectron2_sam
    from detectron2.config import get_cfg

    detectron2_sam.register()               # registries and catalogs; call it once or many times
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)          # before merge_from_file
    cfg.merge_from_file("configs/possam_T.yaml")

docs/detectron2.md shows how to plug it into a project. Nothing else in this repository imports Detectron2.
"""

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    raise ModuleNotFoundError(
        "detectron2_sam needs Detectron2, which is not installed here; how to install it: docs/detectron2.md, "
        "https://detectron2.readthedocs.io/tutorials/install.html",
        name="detectron2",
    ) from None

from detectron2_sam.plugin.amodal_detector import whole_objects
from detectron2_sam.plugin.config import add_config
from detectron2_sam.plugin.datasets import metadata_of, register_visible_parts, vocabulary_of
from detectron2_sam.plugin.detector import register_box_detector
from detectron2_sam.plugin.registration import register

__all__ = [
    "add_config",
    "metadata_of",
    "register",
    "register_box_detector",
    "register_visible_parts",
    "vocabulary_of",
    "whole_objects",
]
