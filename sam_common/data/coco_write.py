"""What files in COCO's formats have in common where they are written.

Formats: https://cocodataset.org/#format-data and https://cocodataset.org/#format-results.
"""

from __future__ import annotations

from typing import Any

from sam_common.boxes.boxes import xywh
from sam_common.masks.rle import encode_mask
from sam_common.structures import Instances, Vocabulary


def coco_json(images: list[dict], annotations: list[dict], vocabulary: Vocabulary) -> dict[str, Any]:
    """The content of a COCO panoptic JSON."""
    return {"images": images, "annotations": annotations, "categories": coco_categories(vocabulary)}


def coco_categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Its `categories`; `synonyms` is an addition that our own reader understands."""
    return [{"id": c.id, "name": c.name, "isthing": int(c.is_thing), "synonyms": list(c.synonyms)} for c in vocabulary]


def coco_instances(instances: Instances, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Instances on the CPU as entries of COCO results, but for their image; ids of classes are the vocabulary's."""
    scores, classes, boxes = (t.tolist() for t in (instances.scores, instances.pred_classes, instances.pred_boxes))
    return [
        {"category_id": vocabulary[index].id, "bbox": xywh(box), "score": score, "segmentation": encode_mask(mask)}
        for mask, score, index, box in zip(instances.pred_masks, scores, classes, boxes, strict=True)
    ]
