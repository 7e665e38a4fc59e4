"""Judges whole objects, hidden parts included: amodal IoU of those that were asked about, and mask AP of all.

Each prediction answers a box; the box belongs to the annotation that `annotation_ids` names, or to none. The IoUs of
`amodal_iou` are taken of the former, in the frame of the whole image, against truth that nothing is cut from. What no
box was of has no prediction: it is counted as `n_missed` and left out of these means, while AP counts it as missed, and
boxes of nothing as false.

`amodal_results.json` holds every prediction in COCO's results format, so COCO's own tools read it:

    image_id, category_id    the data set's own; the class is that of the object the box is of, null where of none
    segmentation, bbox       RLE of the amodal mask in the frame of the image, [x, y, width, height] in pixels around it
    score                    of the box times that of the mask
    visible_segmentation     RLE likewise of what is seen, and of the rest of the amodal mask;
    occluded_segmentation    not there from a model that makes no visible masks
    prompt_bbox              [x, y, width, height], the box that was asked about
    annotation_id            what the box is of; null for nothing, and then without the entries below
    iou                      full, occluded, visible, each in [0, 1]; full_merged, occluded_merged with the predicted
                             visible mask added; visible_as_amodal, of the true visible mask taken as the answer
    hidden                   strict, compat: whether the object has a hidden part, in either reading
    beyond_crop              pixels of the true amodal mask outside the window that the model looked at
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plug.crop import cut_off
from plug.data.annotations import read_amodal
from plug.evaluation.iou import AmodalCounts, amodal_counts, amodal_means, mask_iou, merge_visible
from plug.structures import AmodalInput, AmodalInstances, AmodalOutput, AmodalRecord, coco_result
from sam_common.boxes.boxes import xywh
from sam_common.evaluation.evaluator import Evaluator, Results
from sam_common.evaluation.mask_ap import average_precision, coco_library
from sam_common.evaluation.result_file import ResultFile
from sam_common.layers.processes import gather, is_main_process
from sam_common.masks.rle import segmentation_extent

_AMODAL, _VISIBLE = "segmentation", "visible_segmentation"  # in the truth and in the results
_ONE_CLASS = {"id": 1, "name": "any"}


class AmodalEvaluator(Evaluator):
    """Compares `amodal` with an amodal annotation; each prediction is encoded at once and kept on disk.

    Writes `amodal_results.json` into `output_dir`. Classes are not learned: it does not look at those trained on.
    """

    judges = ("amodal",)

    @property
    def rules(self) -> dict[str, str]:
        """How its numbers come about."""
        return {
            "IoU": "of each instance in the frame of the whole image, then the mean over instances",
            "hidden": "amodal and not visible; strict: it has a pixel, compat: the amodal mask has more pixels than "
            "the visible one, as the published code of C2F-Seg counts",
            "missed": "instances that no box is of count in n_missed and AP, not in mIoU",
            "merged": "with the predicted visible mask added to the amodal one",
            "visible_as_amodal": "baseline: the true visible mask taken as the answer",
            "AP": f"{coco_library()[0]}; a score is that of the box times that of the mask; a class is that of the "
            "object the box is of, so with the boxes of the truth it is an upper bound; where any box is of nothing, "
            "all classes are judged as one",
        }

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self._results = ResultFile(self.output_dir / "amodal_results.json")

    def judge(self, record: AmodalRecord, item: AmodalInput, output: AmodalOutput) -> None:
        """Writes an image; `amodal` is `AmodalInstances` in the order of the input's `annotation_ids`."""
        found: AmodalInstances = output["amodal"]
        if tuple(found.image_size) != (record["height"], record["width"]):
            raise ValueError(f"the objects of {record['file_name']} are of {found.image_size} pixels")
        self._results.append(self._entries(record, item, found))

    def evaluate(self) -> Results:
        """Over all ranks, percentages; NaN where there is nothing to take a mean of.

        Returns:
            `amodal`: what `amodal_means` names, `n_missed`, `beyond_crop`, and `AP`, `AP50` … as `average_precision`;
            `amodal_merged`: the means with the visible mask merged in; `visible`: `mIoU` and AP, both only where the
            model makes visible masks; `visible_as_amodal`: the means of that baseline.
        """
        images = self.images()
        self._results.join()
        return gather(self._judge(images) if is_main_process() else {})[0]

    def _entries(self, record: AmodalRecord, item: AmodalInput, found: AmodalInstances) -> list[dict[str, Any]]:
        found = found.to("cpu")
        truth = {entry["id"]: entry for entry in record["annotations"]}
        asked = zip(item["annotation_ids"], item["category_ids"], item["box_scores"], strict=True)
        entries = []
        for index, (annotation_id, category, box_score) in enumerate(asked):
            category_id = None if category is None else self.vocabulary[category].id
            amodal, visible = found.amodal_mask(index), found.visible_mask(index)
            entry: dict[str, Any] = {"image_id": record["image_id"]}
            entry |= coco_result(amodal, visible, category_id, box_score * float(found.scores[index]))
            entry |= {"prompt_bbox": xywh(found.pred_boxes[index].tolist()), "annotation_id": annotation_id}
            if annotation_id is not None:
                true_amodal, true_visible = read_amodal(record | {"annotations": [truth[annotation_id]]})
                entry |= _compare(amodal[None], None if visible is None else visible[None], true_amodal, true_visible)
                entry["beyond_crop"] = int(cut_off(true_amodal[0], found.windows[index]))
            entries.append(entry)
        return entries

    def _judge(self, images: list[int | str]) -> Results:
        predicted = json.loads(self._results.path.read_bytes())
        judged = [entry for entry in predicted if entry["annotation_id"] is not None]
        truth = [entry | {"image_id": image} for image in images for entry in self.records[image]["annotations"]]
        area = {(entry["image_id"], entry["id"]): entry["area"] for entry in truth}
        pixels = sum(area[entry["image_id"], entry["annotation_id"]] for entry in judged)
        results = {
            "amodal": _means(judged, "full", "occluded")
            | {"n_missed": float(len(truth) - len(judged))}
            | {"beyond_crop": 100 * sum(entry["beyond_crop"] for entry in judged) / pixels if pixels else torch.nan}
            | self._average_precision(images, truth, predicted, _AMODAL)
        }
        if all(_VISIBLE in entry for entry in predicted):
            ious = [entry["iou"]["visible"] for entry in judged]
            results["amodal_merged"] = _means(judged, "full_merged", "occluded_merged")
            results["visible"] = {
                "mIoU": 100 * float(np.mean(ious)) if ious else torch.nan,
                "n": float(len(judged)),
            } | self._average_precision(images, truth, predicted, _VISIBLE)
        results["visible_as_amodal"] = _means(judged, "visible_as_amodal", None)
        return results

    def _average_precision(
        self, images: list[int | str], truth: list[dict[str, Any]], predicted: list[dict[str, Any]], key: str
    ) -> dict[str, float]:
        """AP of the masks under `key`, without the number of classes: `n` counts instances here."""
        one_class = any(entry["category_id"] is None for entry in predicted)
        categories = [{"id": category.id, "name": category.name} for category in self.vocabulary]
        sizes = [{side: self.records[image][side] for side in ("height", "width")} | {"id": image} for image in images]

        def judged(entry: dict[str, Any], category_id: int) -> dict[str, Any]:
            shape = {"image_id": entry["image_id"], "bbox": entry["bbox"], "segmentation": entry[key]}
            return shape | {"category_id": _ONE_CLASS["id"] if one_class else category_id}

        annotations = [
            judged(entry, categories[entry["category_id"]]["id"]) | {"iscrowd": 0, "area": self._area(entry, key)}
            for entry in truth
        ]
        detections = [judged(entry, entry["category_id"]) | {"score": entry["score"]} for entry in predicted]
        content = {"images": sizes, "categories": [_ONE_CLASS] if one_class else categories, "annotations": annotations}
        metrics = average_precision(content, detections, "segm")
        return {name: value for name, value in metrics.items() if name != "n"}

    def _area(self, entry: dict[str, Any], key: str) -> int:
        record = self.records[entry["image_id"]]
        return segmentation_extent(entry[key], record["height"], record["width"])[1]


def _compare(amodal: Tensor, visible: Tensor | None, true_amodal: Tensor, true_visible: Tensor) -> dict[str, Any]:
    """`iou` and `hidden` of a prediction; all masks are [1, H, W] bool."""
    counts = amodal_counts(amodal, true_amodal, true_visible)
    iou = {"full": counts.full, "occluded": counts.occluded}
    if visible is not None:
        merged = amodal_counts(merge_visible(amodal, visible), true_amodal, true_visible)
        iou |= {"visible": mask_iou(visible, true_visible)}
        iou |= {"full_merged": merged.full, "occluded_merged": merged.occluded}
    iou["visible_as_amodal"] = mask_iou(true_visible, true_amodal)
    hidden = {"strict": counts.strict, "compat": counts.compat}
    return {
        "iou": {name: value.item() for name, value in iou.items()},
        "hidden": {name: value.item() for name, value in hidden.items()},
    }


def _means(judged: Sequence[dict[str, Any]], full: str, occluded: str | None) -> dict[str, float]:
    """`amodal_means` of results; without a name of the occluded IoU nothing hidden was said, and it is 0."""
    ious, hidden = [entry["iou"] for entry in judged], [entry["hidden"] for entry in judged]
    counts = AmodalCounts(
        full=torch.tensor([iou[full] for iou in ious], dtype=torch.float64),
        occluded=torch.tensor([iou[occluded] if occluded else 0.0 for iou in ious], dtype=torch.float64),
        strict=torch.tensor([reading["strict"] for reading in hidden], dtype=torch.bool),
        compat=torch.tensor([reading["compat"] for reading in hidden], dtype=torch.bool),
    )
    return amodal_means(counts)
