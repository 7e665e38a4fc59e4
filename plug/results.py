"""What PLUG found in a picture, and its files.

    amodal_results.json   COCO results of whole objects (https://cocodataset.org/#format-results), with their visible
                          and hidden parts, masks as RLE
    images.json           the images and classes it refers to

Boxes are XYWH in pixels; an image's id is its place among the inputs, from 1. An entry has the image's `file_name` too,
so that the list serves as a box file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from plug.drawing import draw_amodal
from plug.structures import AmodalInstances, coco_result
from sam_common import prediction
from sam_common.boxes.boxes import Boxes, xywh
from sam_common.data.coco_write import coco_json
from sam_common.io.files import write_text
from sam_common.io.inputs import Input
from sam_common.structures import Category
from sam_common.text import counted


@dataclass
class Prediction(prediction.Prediction):
    """The whole objects, in the order of their boxes.

    Attributes:
        instances: amodal and visible masks: `instances.amodal_mask(0)` is bool [H, W].
        boxes: what was asked about; a category that is a number is the id of a class.
    """

    instances: AmodalInstances
    boxes: Boxes

    def draw(self) -> Image.Image:
        """The picture under its objects; what of one is hidden is hatched."""
        found, pixels = self.instances, self.image.permute(1, 2, 0).numpy()
        seen: Callable[[int], Any] = found.amodal_mask if found.pred_visible_masks is None else found.visible_mask
        amodal, visible = (map(make, range(len(found))) for make in (found.amodal_mask, seen))
        return Image.fromarray(draw_amodal(pixels, amodal, visible, found.pred_boxes.numpy(), self._words()))

    def describe(self) -> str:
        counts = Counter(word or "object" for word in self._words())
        return ", ".join(counted(number, word) for word, number in counts.items()) or "no boxes"

    def to_coco(self) -> list[dict[str, Any]]:
        """With the keys that an evaluation's amodal_results.json has, and `category`."""
        found, entries = self.instances, []
        for index, name in enumerate(self._names()):
            score = float(self.boxes.scores[index] * found.scores[index])
            entry = coco_result(
                found.amodal_mask(index), found.visible_mask(index), int(name) if name.isdecimal() else None, score
            )
            if self.boxes.categories is not None and not name.isdecimal():
                entry["category"] = name
            entries.append(entry | {"prompt_bbox": xywh(found.pred_boxes[index].tolist())})
        return entries

    def files(self, folder: Path) -> PredictionFiles:
        return PredictionFiles(folder)

    def _names(self) -> list[str]:
        return [""] * len(self.boxes) if self.boxes.categories is None else self.boxes.categories

    def _words(self) -> list[str]:
        """What is written beside each object."""
        return ["" if name.isdecimal() else name for name in self._names()]


class PredictionFiles(prediction.PredictionFiles[Prediction]):
    """Writes the whole objects of a run; classes are numbered as they come."""

    summaries = ("amodal_results.json", "images.json")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._annotations: list[dict[str, Any]] = []
        self._category_ids: dict[str, int] = {}

    def add_found(self, image: dict[str, Any], source: Input, prediction: Prediction) -> None:
        for entry in prediction.to_coco():
            if "category" in entry:
                entry["category_id"] = self._category_ids.setdefault(entry["category"], len(self._category_ids) + 1)
            self._annotations.append({"image_id": image["id"], "file_name": source.relative} | entry)

    def write_json(self) -> None:
        vocabulary = tuple(Category(name, (name,), True, index) for name, index in self._category_ids.items())
        write_text(self.folder / "amodal_results.json", json.dumps(self._annotations))
        write_text(self.folder / "images.json", json.dumps(coco_json(self.images, [], vocabulary)))
