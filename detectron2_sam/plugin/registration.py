"""Entering our parts in Detectron2's registries."""

from __future__ import annotations

from collections.abc import Collection

from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from detectron2_sam.methods import methods
from detectron2_sam.plugin.amodal import PLUG, VanillaSAM
from detectron2_sam.plugin.amodal_detector import AmodalDetector
from detectron2_sam.plugin.datasets import register_datasets
from detectron2_sam.plugin.detector import named_detector
from detectron2_sam.plugin.few_shot import AMSAM, BoxRectangle, PromptedSAM
from detectron2_sam.plugin.modeling import POSSAM_HEAD_REGISTRY, PosSAM, PosSAMHead, SamViTBackbone
from detectron2_sam.plugin.solver import register_solver
from sam_common.boxes.detectors import register_detectors
from sam_common.errors import UserError

KINDS = ("models", "datasets", "solver")

PARTS = (
    *((META_ARCH_REGISTRY, model) for model in (PosSAM, PLUG, VanillaSAM, AMSAM, PromptedSAM, BoxRectangle)),
    (META_ARCH_REGISTRY, AmodalDetector),
    (BACKBONE_REGISTRY, SamViTBackbone),
    (POSSAM_HEAD_REGISTRY, PosSAMHead),
)


def register(only: Collection[str] = KINDS) -> None:
    """Makes this project known to Detectron2; calling it again changes nothing.

    Args:
        only: what is registered: `models` (its backbone, heads and meta-architectures, and Detectron2's detectors as
            sources of boxes), `datasets` (in its catalogs, but for names that are taken), and `solver` (AdamW, the
            schedules and the clipping of our models, in place of Detectron2's for these).

    Raises:
        UserError: `only` names something else, or another part has one of our names in a registry.
    """
    if isinstance(only, str) or not set(only) <= set(KINDS):
        raise UserError(f"register(only={only!r}): give some of {KINDS}")
    if "models" in only:
        _register_models()
    if "datasets" in only:
        register_datasets()
    if "solver" in only:
        register_solver()


def _register_models() -> None:
    methods()
    for registry, part in PARTS:
        if part.__name__ not in registry:
            registry.register(part)
        elif registry.get(part.__name__) is not part:
            raise UserError(f"Detectron2 already has another {part.__name__}: {registry.get(part.__name__)}")
    register_detectors("detectron2", named_detector)
