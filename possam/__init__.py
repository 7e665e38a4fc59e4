"""PosSAM: open-vocabulary panoptic segmentation from an image and words (arXiv 2403.09620)."""

from typing import TYPE_CHECKING

from sam_common import lazy_attributes

if TYPE_CHECKING:
    from possam.possam import PosSAM
    from possam.predictor import Predictor
    from sam_common.data.vocabulary_file import parse_vocabulary

__all__ = ["PosSAM", "Predictor", "parse_vocabulary"]

__getattr__ = lazy_attributes(
    __name__,
    {"PosSAM": "possam.possam", "Predictor": "possam.predictor", "parse_vocabulary": "sam_common.data.vocabulary_file"},
)
