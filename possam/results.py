"""What PosSAM found in a picture, and its files in COCO's formats (https://cocodataset.org/#format-results).

    panoptic   panoptic/<name>.png  ids, R + 256 G + 65536 B     panoptic.json   a COCO panoptic data set
    semantic   semantic/<name>.png  indices of classes           semantic.json   images, and classes in that order
    instance                                                     instances.json  COCO results: a list, masks as RLE
                                                                 images.json     the images and classes it refers to

Class ids are those of the vocabulary; boxes XYWH in pixels; an image's id is its place among the inputs, from 1.
An entry of COCO results has the image's `file_name` too, so that the list serves as a box file.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as codec
from torch import Tensor

from sam_common import prediction
from sam_common.contracts import Panoptic
from sam_common.data.coco_write import coco_instances, coco_json
from sam_common.data.images import write_segment_ids
from sam_common.errors import UserError
from sam_common.evaluation.mean_iou import best_class
from sam_common.io.files import atomic_path, write_text
from sam_common.io.inputs import Input
from sam_common.masks.rle import encode_labels
from sam_common.reporting.drawing import draw_panoptic
from sam_common.structures import Instances, Vocabulary
from sam_common.text import counted

TASKS = ("panoptic", "semantic", "instance")


@dataclass
class Prediction(prediction.Prediction):
    """What was found of a vocabulary; of the outputs those that the model was asked for, at the size of the image.

    Attributes:
        vocabulary: what was looked for; classes are indices of it.
        panoptic_seg: see `Panoptic`.
        instances: best first.
        sem_seg_labels: int64 [H, W], the class of each pixel.
        sem_seg: [C, H, W], the scores of the classes.
        task: which output is drawn, told and saved, one of `TASKS`; by default the first there is.
    """

    vocabulary: Vocabulary
    panoptic_seg: Panoptic | None = None
    instances: Instances | None = None
    sem_seg_labels: Tensor | None = None
    sem_seg: Tensor | None = None
    task: str = ""

    def __post_init__(self) -> None:
        if self.sem_seg_labels is None and self.sem_seg is not None:
            self.sem_seg_labels = best_class(self.sem_seg)
        outputs = zip(TASKS, (self.panoptic_seg, self.sem_seg_labels, self.instances), strict=True)
        made = [task for task, output in outputs if output is not None]
        if not made or self.task not in ("", *made):
            raise UserError(f"no {self.task or 'output'} was made: the configuration's MODEL.POSSAM.TEST.*_ON decide")
        self.task = self.task or made[0]

    def draw(self) -> Image.Image:
        ids, segments = self.segments
        pixels = self.image.permute(1, 2, 0).numpy()
        return Image.fromarray(draw_panoptic(pixels, ids.numpy(), segments, self.vocabulary))

    def describe(self) -> str:
        """In the order of the vocabulary, things counted where they are told apart: "3 dogs, sky, grass"."""
        counts = Counter(segment["category_id"] for segment in self.segments[1])
        count = self.task != "semantic"
        found = [
            counted(counts[index], category.name) if category.is_thing and count else category.name
            for index, category in enumerate(self.vocabulary)
            if counts[index]
        ]
        return ", ".join(found) or "nothing found"

    def to_coco(self) -> list[dict[str, Any]]:
        """Instances as COCO results, or `segments_info` of the COCO panoptic format with masks, and with scores where
        segments have one: class ids of the vocabulary, boxes XYWH in pixels."""
        if self.task == "instance":
            assert self.instances is not None
            return coco_instances(self.instances, self.vocabulary)
        ids, segments = self.segments
        masks, found = encode_labels(ids), []
        for segment in segments:
            if segment["id"] not in masks:
                continue
            category, mask = self.vocabulary[segment["category_id"]], masks[segment["id"]]
            score = {"score": round(float(segment["score"]), 4)} if "score" in segment else {}
            found.append(
                {
                    "id": int(segment["id"]),
                    "category_id": category.id,
                    "isthing": int(category.is_thing),
                    **score,
                    "area": int(codec.area(mask)),
                    "bbox": [int(side) for side in codec.toBbox(mask)],
                    "iscrowd": 0,
                    "segmentation": mask,
                }
            )
        return found

    def files(self, folder: Path) -> PredictionFiles:
        return PredictionFiles(folder, self.task)

    @functools.cached_property
    def segments(self) -> Panoptic:
        """The output of `task` as an id map and its segments.

        Of instances that overlap the map shows the best; the list holds all. Semantic segments have no score.
        """
        if self.task == "semantic":
            assert self.sem_seg_labels is not None
            classes = self.sem_seg_labels.unique().tolist()
            return self.sem_seg_labels.int() + 1, [{"id": c + 1, "category_id": c} for c in classes]
        if self.task == "instance":
            assert self.instances is not None
            return _overlaid(self.instances)
        assert self.panoptic_seg is not None
        return self.panoptic_seg


def _overlaid(instances: Instances) -> Panoptic:
    ids = torch.zeros(instances.image_size, dtype=torch.int32)
    for index in reversed(range(len(instances))):
        ids[instances.pred_masks[index]] = index + 1
    pairs = zip(instances.pred_classes.tolist(), instances.scores.tolist(), strict=True)
    return ids, [{"id": i, "category_id": c, "score": score} for i, (c, score) in enumerate(pairs, start=1)]


class PredictionFiles(prediction.PredictionFiles[Prediction]):
    """Writes the predictions of a run of one task, of one vocabulary."""

    def __init__(self, folder: Path, task: str) -> None:
        super().__init__(folder)
        self.task = task
        self.summaries = ("instances.json", "images.json") if task == "instance" else (f"{task}.json",)
        self.vocabulary: Vocabulary = ()
        self._annotations: list[dict[str, Any]] = []

    def maps(self, source: Input) -> list[Path]:
        return [] if self.task == "instance" else [self.folder / self.task / f"{source.name}.png"]

    def add_found(self, image: dict[str, Any], source: Input, prediction: Prediction) -> None:
        self.vocabulary = prediction.vocabulary
        of_image = {"image_id": image["id"]}
        if self.task == "instance":
            self._annotations += [
                of_image | {"file_name": source.relative} | instance for instance in prediction.to_coco()
            ]
            return
        (path,) = self.maps(source)
        ids = prediction.segments[0]
        if self.task == "panoptic":
            write_segment_ids(path, ids)
        else:
            _write_labels(path, ids - 1, len(self.vocabulary))
        info = [{key: segment[key] for key in segment if key != "segmentation"} for segment in prediction.to_coco()]
        self._annotations.append(of_image | {"file_name": f"{source.name}.png", "segments_info": info})

    def write_json(self) -> None:
        if self.task == "instance":
            write_text(self.folder / "instances.json", json.dumps(self._annotations))
            write_text(self.folder / "images.json", json.dumps(coco_json(self.images, [], self.vocabulary)))
        else:
            content = coco_json(self.images, self._annotations, self.vocabulary)
            write_text(self.folder / f"{self.task}.json", json.dumps(content))


def _write_labels(path: Path, labels: Tensor, num_classes: int) -> None:
    """Indices of classes as an 8-bit PNG, or a 16-bit one where that is too small: its 255 stands for "ignored"."""
    kind = np.uint8 if num_classes <= 255 else np.uint16
    with atomic_path(path) as temporary:
        Image.fromarray(labels.numpy().astype(kind)).save(temporary)
