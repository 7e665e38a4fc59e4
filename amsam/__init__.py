"""AM-SAM: few-shot segmentation with SAM; prompts come from a detector, masks are calibrated."""

from typing import TYPE_CHECKING

from sam_common import lazy_attributes

if TYPE_CHECKING:
    from amsam.amsam import AMSAM
    from amsam.predictor import Predictor

__all__ = ["AMSAM", "Predictor"]

__getattr__ = lazy_attributes(
    __name__,
    {"AMSAM": "amsam.amsam", "Predictor": "amsam.predictor"},
)
