"""All labels of a map in COCO's run-length encoding, against pycocotools label by label: one JSON line, bytes first.

python -m benchmarks.label_map_rle
"""

from __future__ import annotations

import numpy as np
import torch
from pycocotools import mask as codec

from benchmarks.scenes import segment_map
from benchmarks.side_by_side import in_turn, tell
from sam_common.masks.rle import encode_labels

HEIGHT, WIDTH, SEGMENTS = 480, 640, 30


def main() -> None:
    """Prints the line."""
    torch.set_num_threads(1)
    labels = segment_map(HEIGHT, WIDTH, SEGMENTS, seed=0).numpy()

    def one_by_one() -> dict[int, bytes]:
        masks = {label: (labels == label).astype(np.uint8) for label in np.unique(labels).tolist()}
        return {label: codec.encode(np.asfortranarray(mask))["counts"] for label, mask in masks.items()}

    def ours() -> dict[int, bytes]:
        return {label: rle["counts"].encode() for label, rle in encode_labels(labels).items()}

    if ours() != one_by_one():
        raise SystemExit("the encodings differ")
    case = f"RLE of a label map, {HEIGHT}×{WIDTH}, {SEGMENTS} labels"
    measured = in_turn(one_by_one, ours, repeats=50)
    tell(case, "pycocotools, label by label", measured, target=8.0)


if __name__ == "__main__":
    main()
