"""Panoptic quality of one pair of images against panopticapi on one core: JSON lines, equal counts first.

    BENCH_PEERS=clones python -m benchmarks.panoptic_quality      # with clones/panopticapi, the peer itself
    DETECTRON2_SAM_SAMPLES=samples python …                       # COCO's own annotations too: samples/coco_panoptic

Five cases: the prediction in memory (the peer reads it from a PNG, which is how it takes one); the same with what
Detectron2's evaluator does before that, writing the PNG, on the peer's side, and on ours without files and with our
result files; and both from PNG, beside the peer and beside Pillow's decoding of the two alone (there the ratio is how
many times as long ours takes). The prediction is the truth moved by a few pixels; truth comes from files as Pillow
writes them, or COCO's own. Without the peer ours runs against itself without compiled kernels.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.scenes import segment_map
from benchmarks.side_by_side import import_file, in_turn, peer_file, tell
from possam.data.segments import column
from sam_common.data.coco_panoptic import load_records, read_ground_truth, read_true_ids
from sam_common.data.images import read_segment_ids, write_segment_ids
from sam_common.evaluation.panoptic_quality import match_segments, shared_pixels
from sam_common.io.native import KERNELS_VARIABLE
from sam_common.masks import kernels
from sam_common.masks.png import inflater

HEIGHT, WIDTH, SEGMENTS, CLASSES = 480, 640, 30, 10
Counts = np.ndarray


def make_pair(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The truth's and the prediction's record with their PNGs in `folder`: a drawn scene."""
    labels = segment_map(HEIGHT, WIDTH, SEGMENTS, seed=0)
    factor = 70001
    truth = {
        "pan_seg_file_name": str(folder / "truth.png"),
        "file_name": "truth.jpg",
        "image_id": 0,
        "height": HEIGHT,
        "width": WIDTH,
        "segments_info": [  # label 0 is void
            {
                "id": k * factor,
                "category_id": k % CLASSES,
                "iscrowd": int(k % 13 == 0),
                "area": int((labels == k).sum()),
            }
            for k in range(1, SEGMENTS)
        ],
    }
    write_with_pillow(Path(truth["pan_seg_file_name"]), labels * factor)
    return truth, moved(truth, labels, folder)


def real_pairs(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The same of COCO's own annotations where the samples are."""
    samples = Path(os.environ.get("DETECTRON2_SAM_SAMPLES", "."), "coco_panoptic")
    if not (samples / "panoptic.json").is_file():
        return
    files = {"json": str(samples / "panoptic.json"), "images": str(samples / "images")}
    for record in load_records("samples", files | {"panoptic": str(samples / "panoptic")}):
        segments = [segment | {"category_id": k % CLASSES} for k, segment in enumerate(record["segments_info"])]
        truth = record | {"segments_info": segments}
        yield truth, moved(truth, read_ground_truth(truth), folder)


def moved(truth: dict[str, Any], labels: Tensor, folder: Path) -> dict[str, Any]:
    """A prediction: the labels, 0 where void, a few pixels further; its PNG is in `folder`."""
    path = folder / "prediction.png"
    write_with_pillow(path, labels.roll((4, 5), (0, 1)))
    segments = [
        {"id": k, "category_id": segment["category_id"], "iscrowd": 0}
        for k, segment in enumerate(truth["segments_info"], start=1)
        if (labels == k).any()
    ]
    return truth | {"pan_seg_file_name": str(path), "file_name": path.name, "segments_info": segments}


def write_with_pillow(path: Path, ids: Tensor) -> None:
    """A panoptic PNG as Detectron2's evaluator makes it: channel by channel, and Pillow's defaults."""
    rest, pixels = ids.numpy().copy(), np.empty((*ids.shape, 3), dtype=np.uint8)
    for channel in range(3):
        pixels[..., channel] = rest % 256
        rest //= 256
    Image.fromarray(pixels).save(path)


def ours(truth: dict[str, Any], prediction: dict[str, Any], ids: Tensor) -> Counts:
    """[C, 4] as the evaluator counts: IoU sum, TP, FP, FN."""
    true, found = truth["segments_info"], prediction["segments_info"]
    areas = shared_pixels(truth, read_true_ids(truth), ids, found)
    classes = column(true, "category_id"), column(true, "iscrowd").bool(), column(found, "category_id")
    return match_segments(areas, *classes, CLASSES).numpy()


def without_kernels(truth: dict[str, Any], prediction: dict[str, Any]) -> Counts:
    with mock.patch.dict(os.environ, {KERNELS_VARIABLE: "pytorch"}):
        return ours(truth, prediction, read_segment_ids(prediction["pan_seg_file_name"]))


def find_peer() -> tuple[str, Callable[[dict[str, Any], dict[str, Any]], Counts]]:
    """panopticapi where its clone is, else ours without compiled kernels."""
    path = peer_file("panopticapi", "panopticapi/evaluation.py")
    if path is None:
        return "ours without compiled kernels (BENCH_PEERS has no panopticapi)", without_kernels
    import_file(path.with_name("__init__.py"))
    from panopticapi.evaluation import pq_compute_single_core

    categories = {index: {"id": index} for index in range(CLASSES)}

    def peer(truth: dict[str, Any], prediction: dict[str, Any]) -> Counts:
        folders = [str(Path(record["pan_seg_file_name"]).parent) for record in (truth, prediction)]
        entries = [record | {"file_name": Path(record["pan_seg_file_name"]).name} for record in (truth, prediction)]
        with contextlib.redirect_stdout(io.StringIO()):  # it talks
            stat = pq_compute_single_core(0, [entries], *folders, categories)
        return np.array([[stat[c].iou, stat[c].tp, stat[c].fp, stat[c].fn] for c in range(CLASSES)])

    return "panopticapi, one core", peer


def compare(case: str, truth: dict[str, Any], prediction: dict[str, Any]) -> None:
    """Prints the lines of one pair."""
    name, peer = find_peer()
    files = [record["pan_seg_file_name"] for record in (truth, prediction)]
    ids = read_segment_ids(files[1])
    written = str(Path(files[1]).with_name("written.png"))

    def theirs() -> Counts:
        return peer(truth, prediction)

    def chain() -> Counts:
        write_with_pillow(Path(written), ids)
        return peer(truth, prediction | {"pan_seg_file_name": written})

    def in_memory() -> Counts:
        return ours(truth, prediction, ids)

    def with_files() -> Counts:
        write_segment_ids(written, ids)
        return ours(truth, prediction, ids)

    def from_files() -> Counts:
        return ours(truth, prediction, read_segment_ids(files[1]))

    def decode() -> None:
        for path in files:
            with Image.open(path) as image:
                image.load()

    for count in (theirs, chain, with_files, from_files):
        np.testing.assert_allclose(count(), in_memory(), rtol=1e-12)
    told = {"kernel": kernels.kernel_in_use(), "inflate": inflater().__name__}
    chained = f"{name}, the prediction written as PNG before"
    tell(f"{case}, prediction in memory", name, in_turn(theirs, in_memory, repeats=50) | told, target=5.0)
    tell(f"{case}, Detectron2's chain", chained, in_turn(chain, in_memory, repeats=20) | told, target=7.0)
    tell(f"{case}, Detectron2's chain, our files written", chained, in_turn(chain, with_files, repeats=20) | told)
    tell(f"{case}, both from PNG", name, in_turn(theirs, from_files, repeats=50) | told)
    decoding = in_turn(decode, from_files, repeats=50) | told
    decoding["ratio"] = round(decoding["ours_ms"] / decoding["peer_ms"], 2)
    tell(f"{case}, both from PNG, times decoding (at most)", "Pillow decoding both", decoding, target=1.3)


def main() -> None:
    """Compares on a drawn pair, and on real ones where there are any."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        compare(f"panoptic quality, {HEIGHT}×{WIDTH}, {SEGMENTS - 1} segments", *make_pair(Path(folder)))
        for truth, prediction in real_pairs(Path(folder)):
            size = f"{truth['height']}×{truth['width']}, {len(truth['segments_info'])} segments"
            compare(f"panoptic quality, COCO {truth['image_id']}, {size}", truth, prediction)


if __name__ == "__main__":
    main()
