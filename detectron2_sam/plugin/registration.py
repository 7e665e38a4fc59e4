"""Entering our parts in Detectron2's registries."""

from __future__ import annotations

from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from detectron2_sam.plugin.amodal import PLUG, VanillaSAM
from detectron2_sam.plugin.amodal_detector import AmodalDetector
from detectron2_sam.plugin.datasets import register_datasets
from detectron2_sam.plugin.detector import named_detector
from detectron2_sam.plugin.few_shot import AMSAM, BoxRectangle, PromptedSAM
from detectron2_sam.plugin.modeling import POSSAM_HEAD_REGISTRY, PosSAM, PosSAMHead, SamViTBackbone
from sam_common.boxes.detectors import register_detectors
from sam_common.errors import UserError

PARTS = (
    *((META_ARCH_REGISTRY, model) for model in (PosSAM, PLUG, VanillaSAM, AMSAM, PromptedSAM, BoxRectangle)),
    (META_ARCH_REGISTRY, AmodalDetector),
    (BACKBONE_REGISTRY, SamViTBackbone),
    (POSSAM_HEAD_REGISTRY, PosSAMHead),
)


def register() -> None:
    """Makes our models and data sets known to Detectron2, and its detectors to us; calling it again changes nothing.

    Raises:
        UserError: something else has one of our names in a registry.
    """
    for registry, part in PARTS:
        if part.__name__ not in registry:
            registry.register(part)
        elif registry.get(part.__name__) is not part:
            raise UserError(f"Detectron2 already has another {part.__name__}: {registry.get(part.__name__)}")
    register_detectors("detectron2", named_detector)
    register_datasets()
