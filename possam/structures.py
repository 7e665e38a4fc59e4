"""What PosSAM is given, beside what every model is (`sam_common/contracts.py`)."""

from __future__ import annotations

from sam_common.contracts import ModelInput
from sam_common.structures import Segments, Vocabulary


class SegmentationInput(ModelInput, total=False):
    """`segments`, at h × w, and `seed`, which keys the draws of the losses, in training."""

    vocabulary: Vocabulary
    segments: Segments
    seed: int
