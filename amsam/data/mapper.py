"""From a record with a mask to the input of a few-shot model: the image, the boxes that prompt it, and its labels.

Nothing is drawn at random and nothing is augmented, so an item depends on its record alone: of the few images of a
training each is read, and looked at by a detector, once.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from amsam.box_prompts import select_boxes
from amsam.data.image_masks import read_labels
from amsam.embedding_cache import content_key
from amsam.structures import FewShotInput, MaskRecord
from sam_common.bounded_cache import BoundedCache
from sam_common.boxes.boxes import Boxes, BoxSource, jitter_boxes, no_boxes, tight_boxes
from sam_common.data.images import read_item
from sam_common.data.loader import item_seed

MEMORY = 2**30
"""Bytes of pictures and labels that a mapper for training may remember."""


class FewShotMapper:
    """Reads one record of `image_masks` and makes a model input of it.

    Called with a record, it returns a dict with `image` (uint8 RGB [3, H, W]), `height`, `width`, `file_name`,
    `image_id`, `content` (a name of the image's content), `boxes` ([n, 4] XYXY in pixels, n at least 1 unless the
    policy is none), `box_found` (else the box is the whole image), and in training `labels` (int64 [H, W], 0 the
    background) and the record's `level`, where it has one.

    Args:
        training: give labels.
        box_source: where boxes come from; None: the box around what the mask says is no background.
        policy, classes: see `select_boxes`.
        jitter: by how much of its side each edge of a true box is moved at most; less than 0.5.
    """

    def __init__(
        self,
        *,
        training: bool,
        box_source: BoxSource | None = None,
        policy: str = "top1",
        classes: Collection[str] = (),
        jitter: float = 0.0,
    ) -> None:
        self.training = training
        self.box_source = box_source
        self.policy = policy
        self.classes = classes
        self.jitter = jitter
        self._seen: BoundedCache[FewShotInput] = BoundedCache(MEMORY)

    def __call__(self, record: MaskRecord, seed: int = 0) -> FewShotInput:
        """The model input of one record.

        Raises:
            UserError: a file of the record cannot be read, or contradicts the record.
        """
        if not self.training:
            return self._read(record)
        item = self._seen.get(record["file_name"])
        if item is None:
            item = self._read(record)
            self._seen.put(record["file_name"], item, item["image"].nbytes + item["labels"].nbytes)
        return {**item, "level": record.get("level", 1)}

    def _read(self, record: MaskRecord) -> FewShotInput:
        read = read_item(record)
        image = read["image"]
        labels = read_labels(record)
        size = (record["height"], record["width"])
        boxes, box_found = select_boxes(self._found(record, image, labels), self.policy, size, classes=self.classes)
        item: FewShotInput = {
            **read,
            "content": content_key(image),
            "boxes": boxes,
            "box_found": box_found,
        }
        return {**item, "labels": labels} if self.training else item

    def _found(self, record: MaskRecord, image: Tensor, labels: Tensor) -> Boxes:
        if self.policy == "none":
            return no_boxes()
        return self.box_source(record, image) if self.box_source is not None else self._true_box(record, labels)

    def _true_box(self, record: MaskRecord, labels: Tensor) -> Boxes:
        mask = labels > 0
        if not mask.any():
            return Boxes(torch.zeros(0, 4), torch.zeros(0))
        # Keyed by the image alone: a box that moved between epochs could not be computed once.
        generator = torch.Generator().manual_seed(item_seed(0, 0, record["image_id"]))
        size = (record["height"], record["width"])
        return Boxes(jitter_boxes(tight_boxes(mask[None]), self.jitter, generator, size), torch.ones(1))
