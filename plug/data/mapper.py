"""From an amodal record to a model input: the image at its own size, boxes of what is seen, and the truth of them.

Boxes are those of the visible masks, moved a little where asked (`boxes.jitter_boxes`), or in testing those
of a detector, each matched with the object that it is of.

What is drawn for an object is keyed by the seed of the item and the object's id: neither how the instances of an image
are grouped nor how many processes there are changes it.
"""

from __future__ import annotations

import torch
from pycocotools import mask as codec
from torch import Tensor
from torchvision.ops import box_iou

from plug.data.annotations import boxes_of, read_amodal
from plug.structures import AmodalInput, AmodalRecord, AskedObjects
from sam_common.boxes.boxes import Boxes, BoxSource, jitter_boxes
from sam_common.contracts import ModelInput, Segmentation
from sam_common.data.images import read_item
from sam_common.data.loader import item_seed
from sam_common.masks.rle import as_rle, checked_segmentation

_FOR_LOSSES, _FOR_JITTER = 0, 1


class AmodalMapper:
    """Reads one record and makes a model input of it.

    Called with a record (see `plug.data.annotations`) and a seed, it returns a dict with `image` (uint8 RGB [3, H,
    W]), `height`, `width`, `file_name`, `image_id`, `boxes` (float32 [n, 4] XYXY in pixels, of visible parts), and

    - training: `visible_masks` and `amodal_masks` (bool [n, H, W]), `seeds` (n ints, keys of the losses' draws);
    - testing: `box_scores` (n floats, 1.0 of true boxes), and of the object that each box is of `annotation_ids`,
      `category_ids` (None where a predicted box is of none) and `amodal_boxes` ([n, 4], zeros there). n may be 0.

    Args:
        training: mirror and give masks, or ask for boxes and match them.
        flip: mirror every second image, by chance (training).
        jitter: by how much of its side each edge of a true box is moved at most; less than 0.5.
        box_source: where boxes come from in testing; None: from the annotation.
        match_iou: the overlap from which a predicted box is of an object: of masks where the source has them, else of
            boxes.
    """

    def __init__(
        self,
        *,
        training: bool,
        flip: bool = False,
        jitter: float = 0.0,
        box_source: BoxSource | None = None,
        match_iou: float = 0.5,
    ) -> None:
        self.training = training
        self.flip = flip
        self.jitter = jitter
        self.box_source = box_source
        self.match_iou = match_iou

    def __call__(self, record: AmodalRecord, seed: int = 0) -> AmodalInput:
        """The model input of one record.

        Raises:
            UserError: a file of the record cannot be read, or contradicts the record.
        """
        item = read_item(record)
        if self.training:
            return self._training_item(item, record, seed)
        if self.box_source is None:
            return {**item, **self._true_boxes(record, seed)}
        return {**item, **self.match(record, self.box_source(record, item["image"]))}

    def _training_item(self, item: ModelInput, record: AmodalRecord, seed: int) -> AmodalInput:
        image, entries = item["image"], record["annotations"]
        boxes = boxes_of(entries, "visible_bbox")
        amodal, visible = read_amodal(record)
        if self.flip and torch.rand((), generator=torch.Generator().manual_seed(seed)) < 0.5:
            image, amodal, visible = (layers.flip(-1) for layers in (image, amodal, visible))
            left, top, right, bottom = boxes.unbind(1)
            boxes = torch.stack((record["width"] - right, top, record["width"] - left, bottom), dim=1)
        return {
            **item,
            "image": image.contiguous(),
            "boxes": self._jitter(boxes, record, seed),
            "visible_masks": visible,
            "amodal_masks": amodal,
            "seeds": [item_seed(seed, _FOR_LOSSES, entry["id"]) for entry in entries],
        }

    def _true_boxes(self, record: AmodalRecord, seed: int) -> AskedObjects:
        entries = record["annotations"]
        return {
            "boxes": self._jitter(boxes_of(entries, "visible_bbox"), record, seed),
            "box_scores": [1.0] * len(entries),
            "annotation_ids": [entry["id"] for entry in entries],
            "category_ids": [entry["category_id"] for entry in entries],
            "amodal_boxes": boxes_of(entries, "bbox"),
        }

    def _jitter(self, boxes: Tensor, record: AmodalRecord, seed: int) -> Tensor:
        size = record["height"], record["width"]
        for index, entry in enumerate(record["annotations"] if self.jitter else ()):
            generator = torch.Generator().manual_seed(item_seed(seed, _FOR_JITTER, entry["id"]))
            boxes[index] = jitter_boxes(boxes[index : index + 1], self.jitter, generator, size)[0]
        return boxes

    def match(self, record: AmodalRecord, found: Boxes) -> AskedObjects:
        """What the model input says of boxes that were found: which object of the record each is of."""
        entries = record["annotations"]
        if found.masks is None:
            overlap = box_iou(found.boxes, boxes_of(entries, "visible_bbox"))
        else:
            size, where = (record["height"], record["width"]), f"the mask of a box in {record['file_name']}"
            masks = [checked_segmentation(mask, *size, where) for mask in found.masks]
            overlap = segmentation_iou(masks, [entry["visible_segmentation"] for entry in entries], *size)
        matches = match_greedily(overlap, found.scores, self.match_iou)
        of = [entries[match] if match >= 0 else None for match in matches.tolist()]
        amodal_boxes = torch.zeros(len(of), 4)
        amodal_boxes[matches >= 0] = boxes_of(entries, "bbox")[matches[matches >= 0]]
        return {
            "boxes": found.boxes,
            "box_scores": found.scores.tolist(),
            "annotation_ids": [entry and entry["id"] for entry in of],
            "category_ids": [entry and entry["category_id"] for entry in of],
            "amodal_boxes": amodal_boxes,
        }


def segmentation_iou(first: list[Segmentation], second: list[Segmentation], height: int, width: int) -> Tensor:
    """IoU of every checked segmentation of one list with every one of another, float32 [N, M]."""
    if not first or not second:
        return torch.zeros(len(first), len(second))
    rles = [[as_rle(segmentation, height, width) for segmentation in some] for some in (first, second)]
    return torch.from_numpy(codec.iou(*rles, [0] * len(second))).float()


def match_greedily(overlap: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """From the best score down, each takes the object that it overlaps most among those still free.

    Args:
        overlap: [N, M] IoU in [0, 1].
        scores: [N].
        threshold: of the IoU, from which they are the same object.

    Returns:
        [N] int64, the object of each, -1 for none; every object at most once.
    """
    matches = torch.full((len(scores),), -1, dtype=torch.int64)
    if not overlap.numel():
        return matches
    free = overlap.clone()
    for index in scores.argsort(descending=True, stable=True).tolist():
        best, place = free[index].max(0)
        if best >= threshold:
            matches[index] = place
            free[:, place] = -1
    return matches
