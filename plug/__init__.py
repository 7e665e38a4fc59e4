"""PLUG: amodal segmentation with SAM, two LoRA branches and uncertainty."""

from typing import TYPE_CHECKING

from sam_common import lazy_attributes

if TYPE_CHECKING:
    from plug.plug import PLUG
    from plug.predictor import Predictor

__all__ = ["PLUG", "Predictor"]

__getattr__ = lazy_attributes(
    __name__,
    {"PLUG": "plug.plug", "Predictor": "plug.predictor"},
)
