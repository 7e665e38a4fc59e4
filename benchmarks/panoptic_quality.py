"""Panoptic quality of one pair of images against panopticapi on one core: JSON lines, equal counts first.

    BENCH_PEERS=clones python benchmarks/panoptic_quality.py      # with clones/panopticapi, the peer itself

Two cases: the prediction in memory (the peer reads it from a PNG, which is how it takes one) and both from PNG; for the
latter also how many times ours takes what decoding the two PNGs takes. Without the peer ours runs against the same
formulation written out here: `np.unique` over pairs of ids. Writing predictions is left out.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from benchmarks.scenes import segment_map
from benchmarks.side_by_side import in_turn, peer_file, tell
from sam_common.data.coco_panoptic import index_segments, index_truth, read_true_ids
from sam_common.data.images import read_segment_ids, write_segment_ids
from sam_common.evaluation.panoptic_quality import joint_areas, joint_runs, match_segments

HEIGHT, WIDTH, SEGMENTS, CLASSES = 480, 640, 30, 10
Counts = np.ndarray


def make_pair(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The truth's and the prediction's record with their PNGs: the same scene, the prediction moved by a few pixels."""
    labels = segment_map(HEIGHT, WIDTH, SEGMENTS, seed=0)
    records = []
    for name, pixels, factor in (("truth", labels, 70001), ("prediction", labels.roll((4, 5), (0, 1)), 1)):
        path = folder / f"{name}.png"
        write_segment_ids(path, pixels * factor)  # label 0 is void
        segments = [
            {"id": k * factor, "category_id": k % CLASSES, "iscrowd": int(name == "truth" and k % 13 == 0)}
            for k in range(1, SEGMENTS)
        ]
        records.append(
            {
                "pan_seg_file_name": str(path),
                "file_name": path.name,
                "image_id": 0,
                "height": HEIGHT,
                "width": WIDTH,
                "segments_info": segments,
            }
        )
    for segment in records[0]["segments_info"]:
        segment["area"] = int((labels == segment["id"] // 70001).sum())
    return records[0], records[1]


def column(record: dict[str, Any], key: str) -> Tensor:
    return torch.tensor([segment[key] for segment in record["segments_info"]])


def ours(truth: dict[str, Any], prediction: dict[str, Any], ids: Tensor) -> Counts:
    """[C, 4] as the evaluator counts: IoU sum, TP, FP, FN."""
    true_runs, predicted_runs, lengths = joint_runs(read_true_ids(truth), ids)
    predicted, _ = index_segments(predicted_runs, column(prediction, "id").int())
    count = len(truth["segments_info"]), len(prediction["segments_info"])
    areas = joint_areas(index_truth(truth, true_runs), predicted, *count, lengths=lengths)
    classes = column(truth, "category_id"), column(truth, "iscrowd").bool(), column(prediction, "category_id")
    return match_segments(areas, *classes, CLASSES).numpy()


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


def find_peer() -> tuple[str, Callable[[dict[str, Any], dict[str, Any]], Counts]]:
    """panopticapi where its clone is, else the same written out."""
    path = peer_file("panopticapi", "panopticapi/evaluation.py")
    if path is None:
        return "the plain NumPy formulation (BENCH_PEERS has no panopticapi)", plain
    sys.path.insert(0, str(path.parents[1]))
    from panopticapi.evaluation import pq_compute_single_core

    categories = {index: {"id": index} for index in range(CLASSES)}

    def peer(truth: dict[str, Any], prediction: dict[str, Any]) -> Counts:
        folder = str(Path(truth["pan_seg_file_name"]).parent)
        entries = [record | {"file_name": Path(record["pan_seg_file_name"]).name} for record in (truth, prediction)]
        with contextlib.redirect_stdout(io.StringIO()):  # it talks
            stat = pq_compute_single_core(0, [entries], folder, folder, categories)
        return np.array([[stat[c].iou, stat[c].tp, stat[c].fp, stat[c].fn] for c in range(CLASSES)])

    return "panopticapi, one core", peer


def main() -> None:
    """Prints two lines."""
    torch.set_num_threads(1)
    name, peer = find_peer()
    with tempfile.TemporaryDirectory() as folder:
        truth, prediction = make_pair(Path(folder))
        ids = read_segment_ids(prediction["pan_seg_file_name"])

        def theirs() -> Counts:
            return peer(truth, prediction)

        def in_memory() -> Counts:
            return ours(truth, prediction, ids)

        def from_files() -> Counts:
            return ours(truth, prediction, read_segment_ids(prediction["pan_seg_file_name"]))

        def decode() -> None:
            for record in (truth, prediction):
                with Image.open(record["pan_seg_file_name"]) as image:
                    image.load()

        np.testing.assert_allclose(in_memory(), theirs(), rtol=1e-12)
        np.testing.assert_array_equal(from_files(), in_memory())
        case = f"panoptic quality, {HEIGHT}×{WIDTH}, {SEGMENTS - 1} segments"
        tell(f"{case}, prediction in memory", name, in_turn(theirs, in_memory, repeats=50), target=5.0)
        both = in_turn(theirs, from_files, repeats=50)
        decoding = in_turn(decode, from_files, repeats=50)
        both["times_decoding"] = round(decoding["ours_ms"] / decoding["peer_ms"], 2)
        both["decoding_ms"] = decoding["peer_ms"]
        tell(f"{case}, both from PNG (target: at most 1.3 times decoding)", name, both, target=1.3)


if __name__ == "__main__":
    main()
