"""Predictions as files in COCO's formats (https://cocodataset.org/#format-results), for each task.

    panoptic   panoptic/<name>.png  ids, R + 256 G + 65536 B     panoptic.json   a COCO panoptic data set
    semantic   semantic/<name>.png  indices of classes           semantic.json   images, and classes in that order
    instance                                                     instances.json  COCO results: a list, masks as RLE
                                                                 images.json     the images and classes it refers to
    amodal                                               amodal_results.json     COCO results of whole objects, with
                                                                 images.json     visible and hidden parts; as above

Class ids are those of the vocabulary; boxes XYWH in pixels; an image's id is its place among the inputs, from 1.
An entry of COCO results has the image's `file_name` too, so that the list serves as a box file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from plug.structures import AmodalInstances
from possam.predictor import Panoptic, coco_json, coco_segments
from sam_common.boxes.boxes import Boxes, tight_boxes, xywh
from sam_common.data.images import write_segment_ids
from sam_common.io.files import atomic_path, write_text
from sam_common.io.inputs import Input
from sam_common.masks.rle import encode_labels, encode_mask
from sam_common.structures import Category, Vocabulary

TASKS = ("panoptic", "semantic", "instance")


def as_panoptic(outputs: dict[str, Any], task: str) -> Panoptic:
    """A model's outputs for one image as an id map and its segments, to be drawn and counted.

    Of instances that overlap the map shows the best; the list holds all. Semantic segments have no score.
    """
    if task == "semantic":
        labels = outputs["sem_seg_labels"]
        return labels.int() + 1, [{"id": c + 1, "category_id": c} for c in labels.unique().tolist()]
    if task == "instance":
        found = outputs["instances"]
        ids = torch.zeros(found.image_size, dtype=torch.int32, device=found.pred_masks.device)
        for index in reversed(range(len(found))):
            ids[found.pred_masks[index]] = index + 1
        pairs = zip(found.pred_classes.tolist(), found.scores.tolist(), strict=True)
        return ids, [{"id": i, "category_id": c, "score": score} for i, (c, score) in enumerate(pairs, start=1)]
    return outputs["panoptic_seg"]


def coco_masks(outputs: dict[str, Any], task: str, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """One dictionary for each segment or instance, as COCO's results hold them, its mask as RLE."""
    if task == "instance":
        return _coco_instances(outputs["instances"].to("cpu"), vocabulary)
    ids, segments = as_panoptic(outputs, task)
    masks = encode_labels(ids.cpu())
    nothing = encode_mask(torch.zeros(ids.shape))
    found = coco_segments((ids, segments), vocabulary)
    return [segment | {"segmentation": masks.get(segment["id"], nothing)} for segment in found]


def _coco_instances(instances: Any, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    return [
        {
            "category_id": vocabulary[int(instances.pred_classes[index])].id,
            "bbox": xywh(box),
            "score": float(instances.scores[index]),
            "segmentation": encode_mask(instances.pred_masks[index]),
        }
        for index, box in enumerate(instances.pred_boxes.tolist())
    ]


class PredictionFiles:
    """Collects the predictions of a run of one task and writes them below `folder`."""

    def __init__(self, folder: Path, task: str, vocabulary: Vocabulary) -> None:
        self.folder = folder
        self.task = task
        self.vocabulary = vocabulary
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def written(self, source: Input) -> list[Path]:
        """The files that an input becomes, the picture or video first."""
        if source.is_video:
            return [self.folder / f"{source.name}.mp4", self.folder / f"{source.name}.jsonl"]
        maps = [] if self.task == "instance" else [self.folder / self.task / f"{source.name}.png"]
        return [self.folder / f"{source.name}.png", *maps]

    def add(self, number: int, source: Input, outputs: dict[str, Any]) -> None:
        """Writes an image's map, if the task has one, and remembers the rest for `finish`; `number` is its id."""
        ids, segments = as_panoptic(outputs, self.task)
        size = {"height": ids.shape[0], "width": ids.shape[1]}
        self._images.append({"id": number, "file_name": source.relative} | size)
        if self.task == "instance":
            self._annotations += [
                {"image_id": number, "file_name": source.relative} | found
                for found in coco_masks(outputs, "instance", self.vocabulary)
            ]
            return
        path = self.written(source)[1]
        if self.task == "panoptic":
            write_segment_ids(path, ids)
        else:
            _write_labels(path, ids - 1, len(self.vocabulary))
        info = coco_segments((ids, segments), self.vocabulary)
        self._annotations.append({"image_id": number, "file_name": f"{source.name}.png", "segments_info": info})

    def finish(self) -> None:
        """Writes the JSON of all images, where there are any."""
        if not self._images:
            return
        if self.task == "instance":
            write_text(self.folder / "instances.json", json.dumps(self._annotations))
            write_text(self.folder / "images.json", json.dumps(coco_json(self._images, [], self.vocabulary)))
        else:
            content = coco_json(self._images, self._annotations, self.vocabulary)
            write_text(self.folder / f"{self.task}.json", json.dumps(content))


def coco_amodal(whole: AmodalInstances, boxes: Boxes) -> list[dict[str, Any]]:
    """One dictionary for each object, with the keys that an evaluation's amodal_results.json has, and `category`.

    Args:
        whole: on the CPU, in the order of the boxes.
        boxes: what was asked about; a category that is a number is the id of a class.
    """
    entries = []
    for index in range(len(whole)):
        amodal, visible = whole.amodal_mask(index), whole.visible_mask(index)
        name = None if boxes.categories is None else boxes.categories[index]
        entry: dict[str, Any] = {
            "category_id": int(name) if name is not None and name.isdecimal() else None,
            "bbox": xywh(tight_boxes(amodal[None])[0].tolist()),
            "score": float(boxes.scores[index] * whole.scores[index]),
            "segmentation": encode_mask(amodal),
        }
        if visible is not None:
            entry["visible_segmentation"] = encode_mask(visible)
            entry["occluded_segmentation"] = encode_mask(amodal & ~visible)
        if name is not None and not name.isdecimal():
            entry["category"] = name
        entries.append(entry | {"prompt_bbox": xywh(whole.pred_boxes[index].tolist())})
    return entries


class AmodalFiles:
    """Collects the whole objects of a run and writes them below `folder`; classes are numbered as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._category_ids: dict[str, int] = {}

    def written(self, source: Input) -> list[Path]:
        """The files that an input becomes, the picture or video first."""
        if source.is_video:
            return [self.folder / f"{source.name}.mp4", self.folder / f"{source.name}.jsonl"]
        return [self.folder / f"{source.name}.png"]

    def add(self, number: int, source: Input, whole: AmodalInstances, boxes: Boxes) -> None:
        """Remembers the objects of an image for `finish`; `number` is its id."""
        size = {"height": whole.image_size[0], "width": whole.image_size[1]}
        self._images.append({"id": number, "file_name": source.relative} | size)
        for entry in coco_amodal(whole, boxes):
            if "category" in entry:
                entry["category_id"] = self._category_ids.setdefault(entry["category"], len(self._category_ids) + 1)
            self._annotations.append({"image_id": number, "file_name": source.relative} | entry)

    def finish(self) -> None:
        """Writes the JSON of all images, where there are any."""
        if not self._images:
            return
        vocabulary = tuple(Category(name, (name,), True, index) for name, index in self._category_ids.items())
        write_text(self.folder / "amodal_results.json", json.dumps(self._annotations))
        write_text(self.folder / "images.json", json.dumps(coco_json(self._images, [], vocabulary)))


def _write_labels(path: Path, labels: Tensor, num_classes: int) -> None:
    """Indices of classes as an 8-bit PNG, or a 16-bit one where that is too small: its 255 stands for "ignored"."""
    kind = np.uint8 if num_classes <= 255 else np.uint16
    with atomic_path(path) as temporary:
        Image.fromarray(labels.cpu().numpy().astype(kind)).save(temporary)
