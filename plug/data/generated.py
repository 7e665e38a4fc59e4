"""The amodal truth of generated scenes, in KINS's schema, made from what `scenes_{split}.json` keeps of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plug.data.coco_amodal import coco_amodal_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.generated.specs import FOLDER, SPLITS, with_command
from sam_common.data.generated.writer import Split, read_info, write_json
from sam_common.masks.rle import segmentation_extent
from sam_common.structures import Vocabulary


def write_amodal(splits: Sequence[Split]) -> None:
    """Writes the amodal JSON of each split, unless the one that is there is of the same scenes.

    Raises:
        UserError: the folder cannot be written to.
    """
    for split in splits:
        path = split.root / f"amodal_{split.name}.json"
        if read_info(path) != split.info:
            write_json(path, amodal_content(json.loads(split.scenes_json.read_text()), split.categories))


def generated_amodal_specs(root: Path) -> list[DatasetSpec]:
    """`generated_train_amodal` and `generated_test_amodal` under `root`/generated."""
    folder = root / FOLDER
    return [
        with_command(
            coco_amodal_spec(
                f"generated_{split}_amodal",
                json_file=folder / f"amodal_{split}.json",
                images=folder / "images" / split,
            ),
            root,
        )
        for split in SPLITS
    ]


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
            box, area = segmentation_extent(thing["whole"], size, size)
            visible_box, _ = segmentation_extent(thing["visible"], size, size)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": thing["category_id"],
                    "iscrowd": 0,
                    "bbox": box,
                    "area": area,
                    "segmentation": thing["whole"],
                    "inmodal_bbox": visible_box,
                    "inmodal_seg": thing["visible"],
                }
            )
    things = [{"id": c.id, "name": c.name, "synonyms": list(c.synonyms)} for c in categories if c.is_thing]
    return {"info": kept["info"], "images": images, "annotations": annotations, "categories": things}
