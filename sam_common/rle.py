"""Masks in COCO's compressed run-length encoding, as annotation and result files hold them: {"size", "counts"}."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as codec
from torch import Tensor


def encode_mask(mask: Tensor | np.ndarray) -> dict[str, Any]:
    """A mask [H, W] of bool or 0 and 1 as {"size": [H, W], "counts": str}, which JSON can hold."""
    rle = codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
