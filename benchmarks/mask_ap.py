"""Mask AP of generated detections against plain pycocotools: one JSON line, equal numbers first.

    pip install -e ".[fast]"     # faster-coco-eval, which the evaluator prefers where it is installed
    python -m benchmarks.mask_ap

Ours is what the evaluator calls at its end: truth and detections are in memory, masks encoded, as both
take them. The line names the library that judged; with pycocotools on both sides the ratio says that nothing is added.
Truth: 10 things in each image; detections: those moved a little, and 40 others, of random classes and scores.
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.side_by_side import Parser, in_turn, tell
from detectron2_sam.commands.cli import run_tool
from sam_common.evaluation.mask_ap import METRICS, average_precision, coco_library
from sam_common.masks.rle import area_and_box, encode_mask

HEIGHT, WIDTH, CLASSES, THINGS, OTHERS = 480, 640, 80, 10, 40


def ellipse(random: np.random.Generator) -> tuple[np.ndarray, float]:
    """Centre and radii (y, x) and the turn of one, as numbers [4], radians; small ones are more frequent."""
    radii = np.exp(random.uniform(np.log(8), np.log(160), 2))
    return np.array([random.uniform(0, HEIGHT), random.uniform(0, WIDTH), *radii]), random.uniform(0, np.pi)


def drawn(shape: np.ndarray, turn: float) -> dict[str, Any]:
    """Its pixels, with what both files need to know."""
    reach = int(shape[2:].max()) + 1
    top, left = max(int(shape[0]) - reach, 0), max(int(shape[1]) - reach, 0)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    part = mask[top : int(shape[0]) + reach + 1, left : int(shape[1]) + reach + 1]
    y = np.arange(top, top + part.shape[0])[:, None] - shape[0]
    x = np.arange(left, left + part.shape[1]) - shape[1]
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    part[:] = (across / shape[2]) ** 2 + (along / shape[3]) ** 2 < 1
    return {"segmentation": encode_mask(mask), **area_and_box(mask)}


def world(images: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A COCO data set and results for it."""
    random = np.random.default_rng(seed)
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for index in range(THINGS + OTHERS):
            shape, turn = ellipse(random)
            shape[:2] = shape[:2].clip(1, [HEIGHT - 2, WIDTH - 2])
            entry = {"image_id": image, "category_id": int(random.integers(1, CLASSES + 1))}
            if index < THINGS:
                truth.append(
                    entry | drawn(shape, turn) | {"id": len(truth) + 1, "iscrowd": int(random.random() < 0.02)}
                )
                moved = shape * random.uniform(0.93, 1.07, 4)
                moved[:2] = moved[:2].clip(1, [HEIGHT - 2, WIDTH - 2])
                shape, turn = moved, turn + random.uniform(-0.1, 0.1)
            found.append(entry | drawn(shape, turn) | {"score": float(random.random() + (index < THINGS) / 4)})
    sizes = [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(1, images + 1)]
    categories = [{"id": index, "name": f"class {index}"} for index in range(1, CLASSES + 1)]
    return {"images": sizes, "categories": categories, "annotations": truth}, found


def main() -> None:
    """Prints the line."""
    args = Parser(__doc__, images=100, repeats=3).parse()
    truth, found = world(args.images, seed=0)
    masks = [{key: value for key, value in entry.items() if key not in ("bbox", "area")} for entry in found]

    def peer() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):  # it talks
            dataset = COCO()
            dataset.dataset = truth
            dataset.createIndex()
            judge = COCOeval(dataset, dataset.loadRes([dict(entry) for entry in masks]), "segm")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        return [100 * value for value in judge.stats[: len(METRICS)]]

    def ours() -> list[float]:
        metrics = average_precision(truth, found, "segm")
        return [metrics[name] for name in METRICS]

    np.testing.assert_allclose(ours(), peer(), rtol=0, atol=1e-9)
    measured = in_turn(peer, ours, repeats=args.repeats) | {"ours": coco_library()[0], "AP": round(ours()[0], 2)}
    size = f"{args.images} images, {THINGS} things and {THINGS + OTHERS} detections each"
    tell(f"mask AP, {size}", "pycocotools", measured, target=2.0)


if __name__ == "__main__":
    sys.exit(run_tool(main))
