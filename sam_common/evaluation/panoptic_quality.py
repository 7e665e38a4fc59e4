"""Panoptic quality: Kirillov et al., "Panoptic Segmentation", CVPR 2019 (arXiv 1801.00868), section 4.

Per class, a predicted segment p and a true segment g of that class match iff IoU(p, g) > 0.5, strictly, which makes the
matching unique. With TP the matched pairs, FP the unmatched predicted and FN the unmatched true segments:

    PQ = Σ_TP IoU(p, g) / (|TP| + ½|FP| + ½|FN|) = SQ · RQ
    SQ = Σ_TP IoU(p, g) / |TP|,    RQ = |TP| / (|TP| + ½|FP| + ½|FN|)

Void and crowd, as in the reference evaluation (COCO's panopticapi): pixels that are void in the truth leave the union;
a crowd segment is never matched and never an FN; an unmatched prediction is no FP if more than half of it lies on void
or on the crowd segment of its class (of several crowds of one class the last listed counts).
Means run over the classes that occur: those with TP + FP + FN > 0. Values are percentages.

The evaluator below writes the official result files (https://cocodataset.org/#format-results).

Symbols: G true and P predicted segments of an image, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sam_common.contracts import ModelInput, PanopticSegment, SegmentationOutput, SegmentationRecord
from sam_common.data.coco_panoptic import index_segments, index_truth, read_true_ids
from sam_common.data.coco_write import coco_categories
from sam_common.data.images import write_segment_ids
from sam_common.evaluation.class_groups import GROUPS, class_groups
from sam_common.evaluation.evaluator import Evaluator, Results, check_shape
from sam_common.evaluation.result_file import ResultFile
from sam_common.io.files import write_text
from sam_common.layers.processes import gather, is_main_process
from sam_common.masks import kernels
from sam_common.masks.rle import run_starts
from sam_common.structures import Vocabulary

IOU, TP, FP, FN = range(4)
"""Columns of the counts [C, 4] float64: the sum of IoUs over matched pairs and the three numbers of segments."""

METRICS = ("PQ", "SQ", "RQ")


def shared_pixels(
    record: SegmentationRecord, true_ids: Tensor, predicted_ids: Tensor, segments: Sequence[PanopticSegment]
) -> Tensor:
    """`joint_areas` of two maps of ids: those of a record's `segments_info` and those of the predicted segments.

    Args:
        true_ids, predicted_ids: int32 [H, W], 0 where void.

    Raises:
        UserError: the annotation has an id that its `segments_info` lacks.
        ValueError: the prediction has one that `segments` lack.
    """
    both = (record["segments_info"], segments)
    listed = [np.array([0, *(segment["id"] for segment in few)], dtype=np.int32) for few in both]
    if (areas := kernels.joint_areas(true_ids.numpy(), predicted_ids.numpy(), *listed)) is not None:
        return torch.from_numpy(areas)
    flat = [ids.numpy().ravel() for ids in (true_ids, predicted_ids)]
    starts = run_starts(*flat)  # some thousands: what is done run by run costs next to nothing
    true_runs, predicted_runs = (torch.from_numpy(ids[starts]) for ids in flat)
    lengths = torch.from_numpy(np.diff(starts, append=true_ids.numel()))
    truth = index_truth(record, true_runs)
    predicted, unknown = index_segments(predicted_runs, torch.from_numpy(listed[1][1:]))
    if len(unknown):
        raise ValueError(f"the prediction of {record['file_name']} has ids without segments_info: {unknown}")
    return joint_areas(truth, predicted, len(record["segments_info"]), len(segments), lengths=lengths)


def joint_areas(
    truth: Tensor, predicted: Tensor, num_true: int, num_predicted: int, *, lengths: Tensor | None = None
) -> Tensor:
    """Pixels shared by every pair of segments.

    Args:
        truth, predicted: [H, W] int64, k+1 where segment k is, 0 where void; or [R], of runs.
        lengths: [R] int64, the pixels of each run.

    Returns:
        [G+1, P+1] int64; row 0 and column 0 are void.
    """
    pairs = (truth * (num_predicted + 1) + predicted).flatten()
    weights = None if lengths is None else lengths.double()  # exact below 2⁵³
    areas = torch.bincount(pairs, weights, minlength=(num_true + 1) * (num_predicted + 1))
    return areas.long().view(num_true + 1, num_predicted + 1)


def match_segments(
    areas: Tensor, true_classes: Tensor, is_crowd: Tensor, predicted_classes: Tensor, num_classes: int
) -> Tensor:
    """The counts of one image.

    Args:
        areas: [G+1, P+1] from `joint_areas`.
        true_classes: [G] int64.
        is_crowd: [G] bool.
        predicted_classes: [P] int64. Predicted segments without a pixel count for nothing.

    Returns:
        [C, 4] float64, columns IOU, TP, FP, FN.
    """
    # In NumPy: dozens of operators on a few numbers each, of which PyTorch's take several times as long to call.
    pixels, true, crowd, found = (x.numpy() for x in (areas, true_classes, is_crowd, predicted_classes))
    intersection, on_void = pixels[1:, 1:], pixels[0, 1:]
    true_area, predicted_area = pixels[1:].sum(1), pixels[:, 1:].sum(0)
    union = true_area[:, None] + predicted_area - intersection - on_void
    same_class = true[:, None] == found
    matched = same_class & ~crowd[:, None] & (2 * intersection > union)  # IoU > ½, exact in integers

    on_crowd = np.zeros_like(on_void)
    for segment in np.flatnonzero(crowd):
        on_crowd = np.where(same_class[segment], intersection[segment], on_crowd)
    ignored = 2 * (on_void + on_crowd) > predicted_area

    false_positive = ~matched.any(0) & ~ignored & (predicted_area > 0)
    false_negative = ~matched.any(1) & ~crowd
    row, column = matched.nonzero()

    counts = np.empty((num_classes, 4))
    counts[:, IOU] = np.bincount(true[row], intersection[row, column] / union[row, column], num_classes)
    counts[:, TP] = np.bincount(true[row], minlength=num_classes)
    counts[:, FP] = np.bincount(found[false_positive], minlength=num_classes)
    counts[:, FN] = np.bincount(true[false_negative], minlength=num_classes)
    return torch.from_numpy(counts)


def panoptic_quality(counts: Tensor) -> Tensor:
    """PQ, SQ and RQ of every class: counts [C, 4] -> [C, 3] percentages; NaN where it does not occur."""
    iou, tp, fp, fn = counts.unbind(1)
    segments = tp + (fp + fn) / 2
    quality = torch.stack((iou / segments, iou / tp.clamp(min=1), tp / segments), dim=1)
    return torch.where(segments[:, None] > 0, 100 * quality, torch.nan)


def summarize(counts: Tensor, vocabulary: Vocabulary, groups: dict[str, Tensor]) -> dict[str, float]:
    """The flat metrics of a table.

    Returns:
        Per group of classes its mean PQ, SQ, RQ and `n`, the number of its classes that occur (a group with n = 0 is
        left out, but not `all`, whose means then are NaN); and per class that occurs `PQ-name`, `SQ-name`, `RQ-name`.
    """
    quality = panoptic_quality(counts)
    occurs = ~quality.isnan().any(1)
    metrics: dict[str, float] = {}
    for group, member in groups.items():
        chosen = quality[member & occurs]
        if len(chosen) or group == "all":
            values = [*chosen.mean(0).tolist(), float(len(chosen))]
            metrics |= {f"{key}{GROUPS[group]}": value for key, value in zip((*METRICS, "n"), values, strict=True)}
    for index in occurs.nonzero().flatten().tolist():
        values = quality[index].tolist()
        metrics |= {f"{key}-{vocabulary[index].name}": value for key, value in zip(METRICS, values, strict=True)}
    return metrics


class PanopticQualityEvaluator(Evaluator):
    """Compares `panoptic_seg` with the ground truth, image by image; keeps counts and the images' ids only.

    Writes into `output_dir`: `predictions/*.png` and `predictions.json` with the data set's own category ids, together
    a COCO panoptic data set; `panoptic_quality.json` with the results, the numbers per class and the rules they follow.
    """

    judges = ("panoptic_seg",)
    rules: Mapping[str, str] = {
        "match": "IoU > 0.5, void and crowd as in panopticapi",
        "mean": "over the classes that occur in truth or prediction",
    }

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self._counts = torch.zeros(len(self.vocabulary), 4, dtype=torch.float64)
        self._predictions = ResultFile(self.output_dir / "predictions.json")

    def judge(self, record: SegmentationRecord, item: ModelInput, output: SegmentationOutput) -> None:
        """Counts an image and writes its prediction."""
        ids, segments = output["panoptic_seg"]
        ids, true_ids = ids.cpu().int(), read_true_ids(record)
        check_shape(record, ids, true_ids)
        areas = shared_pixels(record, true_ids, ids, segments)
        true_segments = record["segments_info"]
        self._counts += match_segments(
            areas,
            _column(true_segments, "category_id"),
            _column(true_segments, "iscrowd").bool(),
            _column(segments, "category_id"),
            len(self.vocabulary),
        )
        png = Path(record["pan_seg_file_name"]).relative_to(self.spec.files["panoptic"]).with_suffix(".png")
        write_segment_ids(self.output_dir / "predictions" / png, ids)
        predicted_areas = areas[:, 1:].sum(0).tolist()
        found = [
            {"id": int(s["id"]), "category_id": self.vocabulary[s["category_id"]].id, "area": area}
            for s, area in zip(segments, predicted_areas, strict=True)
            if area
        ]
        annotation = {"image_id": record["image_id"], "file_name": png.as_posix(), "segments_info": found}
        self._predictions.append([annotation])

    def evaluate(self) -> Results:
        """`{"panoptic_seg": metrics}` as `summarize` names them, over all ranks."""
        counts = torch.stack(gather(self._counts)).sum(0)
        images = self.images()
        groups = class_groups(self.vocabulary, self.training_vocabulary)
        metrics = summarize(counts, self.vocabulary, groups)
        self._predictions.join(self._head(images), key="annotations")
        if is_main_process():
            self._write_quality(counts, metrics, groups.get("seen"), len(images))
        return {"panoptic_seg": metrics}

    def _head(self, image_ids: Sequence[int | str]) -> dict[str, Any]:
        """`predictions.json` but for its annotations."""
        images = []
        for record in (self.records[image_id] for image_id in image_ids):
            file_name = Path(record["file_name"]).relative_to(self.spec.files["images"]).as_posix()
            size = {"height": record["height"], "width": record["width"]}
            images.append({"id": record["image_id"], "file_name": file_name} | size)
        return {"images": images, "categories": coco_categories(self.vocabulary)}

    def _write_quality(self, counts: Tensor, metrics: dict[str, float], seen: Tensor | None, num_images: int) -> None:
        per_class = [
            {
                "name": category.name,
                "isthing": category.is_thing,
                "seen": None if seen is None else bool(seen[index]),
                **{key: metrics.get(f"{key}-{category.name}") for key in METRICS},
                **{key: int(counts[index, column]) for key, column in (("tp", TP), ("fp", FP), ("fn", FN))},
            }
            for index, category in enumerate(self.vocabulary)
        ]
        rules = {
            "dataset": self.spec.name,
            "images": num_images,
            "images_in_dataset": len(self.records),
            **self.rules,
            "seen": "a class that shares a synonym with a training class",
        }
        means = {key: value for key, value in metrics.items() if "-" not in key and value == value}
        content = {"rules": rules, "means": means, "classes": per_class}
        write_text(self.output_dir / "panoptic_quality.json", json.dumps(content))


def _column(segments: Sequence[Any], key: str) -> Tensor:
    return torch.tensor([int(segment[key]) for segment in segments], dtype=torch.int64)
