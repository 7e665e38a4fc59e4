"""The amodal truth of generated scenes in KINS's schema (`instances_*.json`), derived from `scenes_*.json`."""

from __future__ import annotations

from typing import Any

from sam_common.masks.coco_masks import segmentation_extent
from sam_common.structures import Vocabulary


def amodal_content(kept: dict[str, Any], categories: Vocabulary) -> dict[str, Any]:
    """The JSON of a split.

    Args:
        kept: the content of `scenes_{split}.json`.
        categories: of the split; its things are the classes.
    """
    size = kept["info"]["size"]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for scene in kept["scenes"]:
        index = scene["image_id"]
        images.append({"id": index, "file_name": f"{index:08d}.jpg", "height": size, "width": size})
        for thing in scene["things"]:
            box, area = segmentation_extent(thing["amodal"], size, size, f"scene {index}")
            visible_box, _ = segmentation_extent(thing["visible"], size, size, f"scene {index}")
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": thing["category_id"],
                    "iscrowd": 0,
                    "bbox": box,
                    "area": area,
                    "segmentation": thing["amodal"],
                    "inmodal_bbox": visible_box,
                    "inmodal_seg": thing["visible"],
                }
            )
    things = [{"id": c.id, "name": c.name, "synonyms": list(c.synonyms)} for c in categories if c.is_thing]
    return {"info": kept["info"], "images": images, "annotations": annotations, "categories": things}
