"""Average precision of boxes and masks, computed by COCO's own evaluation (https://cocodataset.org/#detection-eval).

None of the arithmetic is ours: `pycocotools`, or `faster_coco_eval` where it is installed, which gives the same numbers
sooner. A report names which one and its version. AP is the mean over IoU thresholds 0.50, 0.55 … 0.95 and over the
classes that the truth has; AP50 and AP75 are at one threshold; APs, APm and APl are of objects of fewer than 32², of
32² to 96² and of more pixels. A crowd is neither found nor missed, and what lies on it is not counted as false. At most
100 detections of an image and class count. Values are percentages.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as codec

from sam_common.contracts import ModelInput, SegmentationOutput, SegmentationRecord
from sam_common.data.coco_write import coco_instances
from sam_common.evaluation.class_groups import GROUPS, published_classes
from sam_common.evaluation.evaluator import Evaluator, Results
from sam_common.evaluation.result_file import ResultFile
from sam_common.evaluation.truth import read_instances, truth_beside
from sam_common.layers.processes import gather, is_main_process, rank_and_size

TASKS = ("segm", "bbox")
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_ALL_AREAS, _MOST_DETECTIONS = 0, -1  # indices into COCOeval's precision [T, R, K, A, M]


def coco_library() -> tuple[str, Any, Any]:
    """Name and version of the library that judges, its COCO and its COCOeval class."""
    if importlib.util.find_spec("faster_coco_eval") is not None:
        from faster_coco_eval import COCO, COCOeval_faster

        return f"faster-coco-eval {importlib.metadata.version('faster-coco-eval')}", COCO, COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return f"pycocotools {importlib.metadata.version('pycocotools')}", COCO, COCOeval


def average_precision(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], task: str) -> dict[str, float]:
    """The metrics of one task.

    Args:
        truth: a COCO data set: `images`, `categories`, `annotations`.
        detections: COCO results: image_id, category_id, score, bbox (XYWH pixels), segmentation (RLE).
        task: "segm" | "bbox".

    Returns:
        `METRICS`, NaN where the truth has nothing of the kind; `n`, the classes that the truth has; per class that it
        has `AP-name`.
    """
    _, coco, evaluation = coco_library()
    # Numbers for ids, from 1: the libraries take a zero for "none" and one of them wants integers.
    images = {image["id"]: number for number, image in enumerate(truth["images"], start=1)}
    categories = {category["id"]: number for number, category in enumerate(truth["categories"], start=1)}
    shared = {
        "images": [image | {"id": images[image["id"]]} for image in truth["images"]],
        "categories": [category | {"id": categories[category["id"]]} for category in truth["categories"]],
    }

    def indexed(entries: Sequence[Mapping[str, Any]]) -> Any:
        dataset = coco()
        numbers = [
            {"id": number, "image_id": images[entry["image_id"]], "category_id": categories[entry["category_id"]]}
            for number, entry in enumerate(entries, start=1)
        ]
        annotations = [{**entry, **ids} for entry, ids in zip(entries, numbers, strict=True)]
        dataset.dataset = {**shared, "annotations": annotations}
        dataset.createIndex()
        return dataset

    found = [{**detection, "iscrowd": 0, "area": _area(detection, task)} for detection in detections]
    with contextlib.redirect_stdout(io.StringIO()):  # both libraries talk
        judge = evaluation(indexed(truth["annotations"]), indexed(found), task)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    per_class = [_mean(judge.eval["precision"][:, :, k, _ALL_AREAS, _MOST_DETECTIONS]) for k in range(len(categories))]
    stats = np.asarray(judge.stats[: len(METRICS)], dtype=np.float64)
    metrics = dict(zip(METRICS, np.where(stats < 0, np.nan, 100 * stats).tolist(), strict=True))
    metrics["n"] = float(np.isfinite(per_class).sum())
    names = [category["name"] for category in truth["categories"]]
    return metrics | {f"AP-{name}": value for name, value in zip(names, per_class, strict=True) if value == value}


def _area(detection: Mapping[str, Any], task: str) -> float:
    """Pixels of a detection, which decide whether it is small, medium or large: of what the task is about."""
    return float(
        codec.area(detection["segmentation"]) if task == "segm" else detection["bbox"][2] * detection["bbox"][3]
    )


def _mean(precision: np.ndarray) -> float:
    """Percentage; −1 marks what the truth does not have."""
    valid = precision[precision > -1]
    return float(100 * valid.mean()) if valid.size else float("nan")


class MaskAPEvaluator(Evaluator):
    """Compares `instances` with an instance annotation, or with the things of a panoptic one.

    Masks are encoded at once and kept on disk, so memory does not grow with the images; rank 0 reads them at the end.
    Writes into `output_dir`: `coco_instances_results.json`, COCO results with the data set's own category ids, and
    `coco_instances_truth.json`, the COCO data set that they were compared with. What is reported is what COCO's
    evaluation says of these two files.
    """

    judges = ("instances",)
    truth = "instance"

    @property
    def rules(self) -> Mapping[str, str]:
        """Names the library."""
        told = {"library": coco_library()[0], "crowd": "ignored", "classes": "the things of the data set"}
        return told | truth_beside(self.spec, self.truth)

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        rank, size = rank_and_size()
        self._numbers = itertools.count(rank + 1, size)  # ids of the truth's annotations, distinct over ranks
        self._results = ResultFile(self.output_dir / "coco_instances_results.json")
        self._truth = ResultFile(self.output_dir / "coco_instances_truth.json")

    def judge(self, record: SegmentationRecord, item: ModelInput, output: SegmentationOutput) -> None:
        """Writes an image; `instances` is `Instances`. Those of stuff classes are skipped."""
        found = output["instances"].to("cpu")
        if tuple(found.image_size) != (record["height"], record["width"]):
            raise ValueError(f"the instances of {record['file_name']} are of {found.image_size} pixels")
        truth = read_instances(record, self.vocabulary)
        self._truth.append({"id": number, **entry} for entry, number in zip(truth, self._numbers, strict=False))
        entries = zip(coco_instances(found, self.vocabulary), found.pred_classes.tolist(), strict=True)
        self._results.append(
            {"image_id": record["image_id"]} | entry for entry, index in entries if self.vocabulary[index].is_thing
        )

    def evaluate(self) -> Results:
        """`{"segm": metrics, "bbox": metrics}` as `average_precision` names them, over all ranks.

        AP_seen and AP_unseen are the means of those classes' AP.
        """
        images = [
            {"id": image, **{key: self.records[image][key] for key in ("file_name", "height", "width")}}
            for image in self.images()
        ]
        things = [category for category in self.vocabulary if category.is_thing]
        categories = [{"id": category.id, "name": category.name} for category in things]
        self._results.join()
        self._truth.join({"images": images, "categories": categories}, key="annotations")
        return gather(self._judge() if is_main_process() else {})[0]

    def _judge(self) -> Results:
        truth, detections = (json.loads(file.path.read_bytes()) for file in (self._truth, self._results))
        results = {task: average_precision(truth, detections, task) for task in TASKS}
        for metrics in results.values():
            for group, names in published_classes(self.vocabulary, self.training_vocabulary).items():
                values = [metrics[f"AP-{name}"] for name in names if f"AP-{name}" in metrics]
                if values:
                    metrics |= {f"AP{GROUPS[group]}": float(np.mean(values)), f"n{GROUPS[group]}": float(len(values))}
        return results
