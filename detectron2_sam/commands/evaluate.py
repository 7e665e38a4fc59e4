"""Evaluate a trained model; the same as `detectron2-sam train --eval-only`.

    detectron2-sam evaluate --config possam_B MODEL.WEIGHTS output/possam/model_final.pth
    detectron2-sam evaluate --config possam_B MODEL.WEIGHTS model_final.pth DATASETS.TEST "('ade20k_panoptic_val',)"

Every data set in DATASETS.TEST is evaluated; results and predictions are written to OUTPUT_DIR/inference.

Exit status: 0 success; 2 a mistake in what was given, described in one line on stderr; 128 + N stopped by signal N.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from detectron2_sam.commands import train


def parse(argv: Sequence[str]) -> argparse.Namespace:
    return train.parse(argv, "evaluate", __doc__)


def main(argv: Sequence[str]) -> dict[str, Any]:
    """See `train.main`."""
    return train.main(argv, "evaluate", __doc__)
