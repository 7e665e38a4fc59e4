"""Panoptic quality of one pair of images, written out as panopticapi counts it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from benchmarks.panoptic_quality import CLASSES, Counts


def plain(truth: dict[str, Any], prediction: dict[str, Any]) -> Counts:
    """The reference's way: ids in 64 bits, `np.unique` over the prediction and over pairs, then pair by pair."""
    maps = []
    for record in (truth, prediction):
        pixels = np.array(Image.open(record["pan_seg_file_name"]), dtype=np.uint32)
        maps.append((pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]).astype(np.uint64))
    predicted_area = dict(zip(*(x.tolist() for x in np.unique(maps[1], return_counts=True)), strict=True))
    pairs, sizes = np.unique(maps[0] * 2**24 + maps[1], return_counts=True)
    shared = {divmod(pair, 2**24): size for pair, size in zip(pairs.tolist(), sizes.tolist(), strict=True)}
    true = {segment["id"]: segment for segment in truth["segments_info"]}
    found = {segment["id"]: segment for segment in prediction["segments_info"]}
    counts, matched = np.zeros((CLASSES, 4)), set()
    for (g, p), size in shared.items():
        if g in true and p in found and not true[g]["iscrowd"] and true[g]["category_id"] == found[p]["category_id"]:
            union = predicted_area[p] + true[g]["area"] - size - shared.get((0, p), 0)
            if 2 * size > union:
                counts[true[g]["category_id"]] += [size / union, 1, 0, 0]
                matched |= {("true", g), ("found", p)}
    crowds = {segment["category_id"]: g for g, segment in true.items() if segment["iscrowd"]}
    for g, segment in true.items():
        counts[segment["category_id"], 3] += ("true", g) not in matched and not segment["iscrowd"]
    for p, segment in found.items():
        excused = shared.get((0, p), 0) + shared.get((crowds.get(segment["category_id"]), p), 0)
        counts[segment["category_id"], 2] += ("found", p) not in matched and 2 * excused <= predicted_area[p]
    return counts
