"""Memory of each evaluator over 5,000 small generated images: JSON lines, and a curve of it all.

    python -m benchmarks.evaluation_memory
    python -m benchmarks.evaluation_memory --evaluators instances amodal --images 20000
    python -m benchmarks.evaluation_memory --output docs/images/evaluation_memory.png

Each evaluator runs in a process of its own, which is fed the predictions of images it has truth for on disk, like a
model's, and reads its resident memory every 250 images. A line says how many bytes an image adds from the first tenth
on (a straight line through what was read), and the peak of `evaluate` at the end: COCO's evaluation of masks holds all
detections at once, here 11 of each image. The records of the data set are there from the beginning. Linux only.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from amsam.evaluation import DiceEvaluator
from benchmarks.memory import MIB, memory
from benchmarks.scenes import segment_map
from benchmarks.side_by_side import Parser, apart
from detectron2_sam.commands.cli import run_tool
from plug.evaluation.evaluator import AmodalEvaluator
from plug.structures import AmodalInstances
from sam_common.boxes.boxes import tight_boxes
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import write_segment_ids
from sam_common.evaluation.evaluator import Evaluator
from sam_common.evaluation.mask_ap import MaskAPEvaluator
from sam_common.evaluation.mean_iou import MeanIoUEvaluator
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from sam_common.io.files import atomic_path
from sam_common.masks.rle import area_and_box, encode_mask
from sam_common.structures import Category, Instances

HEIGHT, WIDTH, SEGMENTS, SCENES = 96, 128, 12, 8
"""Pixels of an image, segments in it (the first is stuff), and how many different images there are."""

CPU = torch.device("cpu")
VOCABULARY = tuple(Category(f"class {k}", (f"class {k}",), k > 0, k + 1) for k in range(SEGMENTS))


@dataclass(frozen=True)
class Case:
    """An evaluator, what it reads of a scene's labels [H, W], and a model's inputs and outputs for them."""

    evaluator: Callable[..., Evaluator]
    truth: Callable[[Tensor, Path], dict[str, Any]]
    prediction: Callable[[Tensor], tuple[dict[str, Any], dict[str, Any]]]


def masks_of(labels: Tensor) -> Tensor:
    """The things' masks [N, H, W] bool; label 0 is no thing."""
    return labels == torch.arange(1, SEGMENTS)[:, None, None]


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
    annotations = [
        {"id": k, "category_id": k, "iscrowd": 0, **area_and_box(mask)}
        | {"segmentation": encode_mask(mask), "visible_segmentation": encode_mask(mask)}
        for k, mask in enumerate(masks_of(labels), start=1)
    ]
    return {"annotations": annotations}


def instance_prediction(labels: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    masks, classes = masks_of(labels), torch.arange(1, SEGMENTS)
    return {}, {"instances": Instances(tuple(labels.shape), masks, torch.rand(len(masks)), classes, tight_boxes(masks))}


def amodal_prediction(labels: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    masks = masks_of(labels)
    numbers, window = list(range(1, len(masks) + 1)), (0, 0, labels.shape[1], labels.shape[0])
    parts = (torch.rand(len(masks)), [window] * len(masks), list(masks), list(masks))
    asked = {"annotation_ids": numbers, "category_ids": numbers, "box_scores": [1.0] * len(masks)}
    return asked, {"amodal": AmodalInstances(tuple(labels.shape), tight_boxes(masks), *parts)}


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


def measure(name: str, images: int, every: int, folder: Path) -> Iterator[tuple[int, int]]:
    """Runs one evaluator; (images so far, bytes), last the peak of `evaluate`."""
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
    yield 0, memory(CPU, "VmRSS")
    for number in range(images):
        item, output = case.prediction(scenes[number % SCENES])
        evaluator.process([{"image_id": number} | item], [output])
        if (number + 1) % every == 0:
            yield number + 1, memory(CPU, "VmRSS")
    evaluator.evaluate()
    yield images, memory(CPU, "VmHWM")


def run(name: str, images: int, every: int) -> dict[str, Any]:
    """The line of one evaluator, measured in this process."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "truth").mkdir()
        *points, end = measure(name, images, every, Path(folder))
    later = [(count, size) for count, size in points if count >= images / 10]
    slope = float(np.polyfit(*zip(*later, strict=True), 1)[0]) if len(later) > 1 else 0.0
    return {
        "case": f"memory of evaluating {images} images, {name}",
        "bytes_per_image": round(slope),
        "start_mib": round(points[0][1] / MIB, 1),
        "end_mib": round(points[-1][1] / MIB, 1),
        "evaluate_mib": round(end[1] / MIB, 1),
        "evaluate_bytes_per_image": round((end[1] - points[-1][1]) / images),
        "every": every,
        "mib": [round(size / MIB, 1) for _, size in points],
    }


def main() -> None:
    """One process after the other."""
    parser = Parser(__doc__, images=5000, every=250)
    parser.add_argument("--evaluators", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output", type=Path, help="a PNG of the curves")
    args = parser.parse()
    lines: dict[str, dict[str, Any]] = {}
    for name in args.evaluators:
        lines[name] = apart(run, name, args.images, args.every)
        print(json.dumps(lines[name]), flush=True)
    if args.output:
        draw(args.output, lines, args.every)


def draw(path: Path, lines: dict[str, dict[str, Any]], every: int) -> None:
    """MiB above those before the first image, over images; a dot where `evaluate` takes it."""
    from matplotlib.figure import Figure  # not in the processes that are measured

    figure = Figure((9, 4.2), layout="constrained")
    axes = figure.add_subplot(frameon=False, xlabel="images")
    axes.set_title("MiB more than before the first image; dots: the evaluation at the end", loc="left")
    axes.grid(axis="y", color="#dddddd")
    axes.tick_params(length=0)
    for name, line in sorted(lines.items(), key=lambda entry: -entry[1]["evaluate_mib"]):
        mib, end = np.subtract(line["mib"], line["mib"][0]), line["evaluate_mib"] - line["mib"][0]
        (curve,) = axes.plot(every * np.arange(len(mib)), mib, linewidth=2, label=f"{name} {end:.0f}")
        axes.plot(every * (len(mib) - 1), end, "o", color=curve.get_color())
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, labelcolor="linecolor")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


if __name__ == "__main__":
    sys.exit(run_tool(main))
