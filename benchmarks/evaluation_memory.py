"""Memory of each evaluator over 5,000 small generated images: JSON lines, and a curve of it all.

    python benchmarks/evaluation_memory.py
    python benchmarks/evaluation_memory.py --evaluators instances amodal --images 20000
    python benchmarks/evaluation_memory.py --output docs/images/evaluation_memory.png

Each evaluator runs in a process of its own, which is fed the predictions of images it has truth for on disk, like a
model's, and reads its resident memory every 250 images. A line says how many bytes an image adds from the first tenth
on (a straight line through what was read), and what `evaluate` takes at the end: COCO's evaluation of masks holds all
detections at once. The records of the data set are there from the beginning.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from benchmarks.scenes import segment_map
from sam_common.chart import round_ticks
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import write_segment_ids
from sam_common.evaluation.amodal_evaluator import AmodalEvaluator
from sam_common.evaluation.dice import DiceEvaluator
from sam_common.evaluation.evaluator import Evaluator
from sam_common.evaluation.mask_ap import MaskAPEvaluator
from sam_common.evaluation.mean_iou import MeanIoUEvaluator
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from sam_common.files import atomic_path
from sam_common.rle import encode_mask
from sam_common.structures import AmodalInstances, Category, Instances

HEIGHT, WIDTH, SEGMENTS, SCENES = 96, 128, 12, 8
"""Pixels of an image, segments in it (the first is stuff), and how many different images there are."""

VOCABULARY = tuple(Category(f"class {k}", (f"class {k}",), k > 0, k + 1) for k in range(SEGMENTS))
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """An evaluator, what it reads of a scene's labels [H, W], and a model's inputs and outputs for them."""

    evaluator: Callable[..., Evaluator]
    truth: Callable[[Tensor, Path], dict[str, Any]]
    prediction: Callable[[Tensor], tuple[dict[str, Any], dict[str, Any]]]


def masks_of(labels: Tensor) -> Tensor:
    """The things' masks [N, H, W] bool; label 0 is no thing."""
    return labels == torch.arange(1, SEGMENTS)[:, None, None]


def boxes_of(masks: Tensor) -> list[list[int]]:
    """[x, y, width, height] of each mask; each has a pixel."""
    return [list(cv2.boundingRect(mask.numpy().astype(np.uint8))) for mask in masks]


def panoptic_truth(labels: Tensor, path: Path) -> dict[str, Any]:
    write_segment_ids(path, labels + 1)
    segments = [{"id": k + 1, "category_id": k, "iscrowd": 0, "area": 0} for k in range(SEGMENTS)]
    return {"pan_seg_file_name": str(path), "segments_info": segments}


def panoptic_prediction(labels: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    segments = [{"id": k + 1, "category_id": k, "isthing": k > 0, "score": 1.0} for k in range(SEGMENTS)]
    return {}, {"panoptic_seg": (labels.int() + 1, segments)}


def semantic_truth(labels: Tensor, path: Path) -> dict[str, Any]:
    Image.fromarray(labels.byte().numpy()).save(path)
    return {"sem_seg_file_name": str(path), "num_classes": SEGMENTS, "ignore_label": 255}


def semantic_prediction(labels: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"sem_seg": torch.nn.functional.one_hot(labels, SEGMENTS).permute(2, 0, 1).float()}


def instance_truth(labels: Tensor, path: Path) -> dict[str, Any]:
    masks = masks_of(labels)
    annotations = [
        {"id": k, "category_id": k, "iscrowd": 0, "area": int(mask.sum()), "bbox": box}
        | {"segmentation": encode_mask(mask), "visible_segmentation": encode_mask(mask)}
        for k, (mask, box) in enumerate(zip(masks, boxes_of(masks), strict=True), start=1)
    ]
    return {"annotations": annotations}


def xyxy(masks: Tensor) -> Tensor:
    return torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes_of(masks)], dtype=torch.float32)


def instance_prediction(labels: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    masks, classes = masks_of(labels), torch.arange(1, SEGMENTS)
    return {}, {"instances": Instances(tuple(labels.shape), masks, torch.rand(len(masks)), classes, xyxy(masks))}


def amodal_prediction(labels: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    masks = masks_of(labels)
    numbers, window = list(range(1, len(masks) + 1)), (0, 0, labels.shape[1], labels.shape[0])
    parts = (torch.rand(len(masks)), [window] * len(masks), list(masks), list(masks))
    asked = {"annotation_ids": numbers, "category_ids": numbers, "box_scores": [1.0] * len(masks)}
    return asked, {"amodal": AmodalInstances(tuple(labels.shape), xyxy(masks), *parts)}


def dice_truth(labels: Tensor, path: Path) -> dict[str, Any]:
    Image.fromarray((255 * (labels > 0)).byte().numpy()).save(path)
    return {"mask_file_name": str(path), "num_classes": 1}


def dice_prediction(labels: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"few_shot": torch.stack([labels == 0, labels > 0]).float()}


CASES = {
    "panoptic": Case(PanopticQualityEvaluator, panoptic_truth, panoptic_prediction),
    "semantic": Case(MeanIoUEvaluator, semantic_truth, semantic_prediction),
    "instances": Case(MaskAPEvaluator, instance_truth, instance_prediction),
    "amodal": Case(AmodalEvaluator, instance_truth, amodal_prediction),
    "few_shot": Case(DiceEvaluator, dice_truth, dice_prediction),
}


def resident() -> int:
    """Bytes of this process that are in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(name: str, images: int, every: int, folder: Path) -> Iterator[tuple[int, int]]:
    """Runs one evaluator; (images so far, bytes), the last after `evaluate`."""
    case = CASES[name]
    scenes = [segment_map(HEIGHT, WIDTH, SEGMENTS, seed=seed) for seed in range(SCENES)]
    truths = [case.truth(labels, folder / "truth" / f"{k}.png") for k, labels in enumerate(scenes)]
    files = {"images": str(folder), "panoptic": str(folder / "truth")}
    records = [
        {"image_id": number, "file_name": str(folder / f"{number}.jpg"), "height": HEIGHT, "width": WIDTH}
        | truths[number % SCENES]
        for number in range(images)
    ]
    spec = DatasetSpec(
        "generated", lambda: records, lambda: VOCABULARY[: 1 if name == "few_shot" else None], files=files
    )
    evaluator = case.evaluator(spec, output_dir=folder / "out")
    yield 0, resident()
    for number in range(images):
        item, output = case.prediction(scenes[number % SCENES])
        evaluator.process([{"image_id": number} | item], [output])
        if (number + 1) % every == 0:
            yield number + 1, resident()
    evaluator.evaluate()
    yield images, resident()


def run(name: str, images: int, every: int) -> None:
    """Prints the line of one evaluator."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "truth").mkdir()
        *points, end = measure(name, images, every, Path(folder))
    later = [(count, size) for count, size in points if count >= images / 10]
    slope = float(np.polyfit(*zip(*later, strict=True), 1)[0]) if len(later) > 1 else 0.0
    line = {
        "case": f"memory of evaluating {images} images, {name}",
        "bytes_per_image": round(slope),
        "start_mib": round(points[0][1] / MIB, 1),
        "end_mib": round(points[-1][1] / MIB, 1),
        "after_evaluate_mib": round(end[1] / MIB, 1),
        "evaluate_bytes_per_image": round((end[1] - points[-1][1]) / images),
        "every": every,
        "mib": [round(size / MIB, 1) for _, size in points],
    }
    print(json.dumps(line), flush=True)


def main() -> int:
    """One process after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluators", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--output", type=Path, help="a PNG of the curves")
    parser.add_argument("--only", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        run(args.only, args.images, args.every)
        return 0
    sizes = ["--images", str(args.images), "--every", str(args.every)]
    curves: dict[str, list[float]] = {}
    for name in tqdm(args.evaluators, leave=False, disable=None):
        command = [sys.executable, __file__, "--only", name, *sizes]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        print(printed, end="", flush=True)
        curves[name] = json.loads(printed.splitlines()[-1])["mib"]
    if args.output:
        draw(args.output, curves, args.every)
    return 0


COLORS = ((47, 111, 171), (214, 96, 48), (64, 145, 108), (155, 89, 182), (120, 120, 120))
SIZE, MARGIN = (900, 420), (70, 50)
"""Width and height of the drawing, and what is left free at its left and its bottom, pixels."""


def draw(path: Path, curves: dict[str, list[float]], every: int) -> None:
    """The curves, MiB over images, from zero up."""
    picture = np.full((SIZE[1], SIZE[0], 3), 255, dtype=np.uint8)
    last = every * max(len(curve) - 1 for curve in curves.values())
    x_ticks = round_ticks(0.0, float(last))
    y_ticks = round_ticks(0.0, 1.1 * max(max(curve) for curve in curves.values()))

    def place(x: float, y: float) -> tuple[int, int]:
        wide, high = SIZE[0] - MARGIN[0] - 130, SIZE[1] - MARGIN[1] - 20
        return round(MARGIN[0] + wide * x / x_ticks[-1]), round(SIZE[1] - MARGIN[1] - high * y / y_ticks[-1])

    def write(text: str, at: tuple[int, int], color: tuple[int, ...] = (90, 90, 90)) -> None:
        cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, 1, cv2.LINE_AA)

    for tick in y_ticks:
        cv2.line(picture, place(0, tick), place(x_ticks[-1], tick), (225, 225, 225), 1)
        write(f"{tick:g}", (20, place(0, tick)[1] + 4))
    for tick in x_ticks:
        write(f"{tick:g}", (place(tick, 0)[0] - 14, SIZE[1] - MARGIN[1] + 20))
    write("images", (SIZE[0] // 2 - 60, SIZE[1] - 10))
    write("MiB resident", (10, 14))
    ends: list[int] = []
    for (name, curve), color in sorted(zip(curves.items(), COLORS, strict=False), key=lambda entry: -entry[0][1][-1]):
        points = np.array([place(every * index, size) for index, size in enumerate(curve)], dtype=np.int32)
        cv2.polylines(picture, [points], False, color, 2, cv2.LINE_AA)
        ends.append(max(int(points[-1][1]), ends[-1] + 16 if ends else 0))
        write(name, (int(points[-1][0]) + 8, ends[-1] + 4), color)
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


if __name__ == "__main__":
    sys.exit(main())
