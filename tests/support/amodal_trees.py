"""Amodal data sets in miniature, in every schema: the same two objects, as the tests of readers and tools need them.

The image is 8 wide and 6 high. Object 1, a car, is 4×3 pixels, of which the right half is hidden by object 2, a van of
3×4 pixels that is seen whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sam_common.masks.rle import encode_mask

HEIGHT, WIDTH = 6, 8
CLASSES = ((4, "car"), (7, "van"))


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Tensor:
    """Columns x0 … x1-1 and rows y0 … y1-1, bool [6, 8]."""
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


AMODAL = torch.stack((rectangle(1, 1, 5, 4), rectangle(3, 1, 6, 5)))
VISIBLE = torch.stack((rectangle(1, 1, 3, 4), rectangle(3, 1, 6, 5)))
OUTLINES = ([1, 1, 5, 1, 5, 4, 1, 4], [3, 1, 6, 1, 6, 5, 3, 5])
AMODAL_BOXES = ([1, 1, 4, 3], [3, 1, 3, 4])
VISIBLE_BOXES = ([1, 1, 2, 3], [3, 1, 3, 4])


def annotations(schema: str) -> list[dict[str, Any]]:
    """Both objects in the schema kins, kins_2020, cocoa_cls or own."""
    entries = []
    for index, (category_id, _) in enumerate(CLASSES):
        amodal, visible = [OUTLINES[index]], encode_mask(VISIBLE[index])
        boxes = {"bbox": AMODAL_BOXES[index]}
        masks: dict[str, Any] = {
            "kins": {"segmentation": amodal, "inmodal_seg": visible, "inmodal_bbox": VISIBLE_BOXES[index], **boxes},
            "kins_2020": {"a_segm": amodal, "i_segm": visible, "a_bbox": boxes["bbox"], "i_bbox": VISIBLE_BOXES[index]},
            "cocoa_cls": {"segmentation": encode_mask(AMODAL[index]), "occlude_rate": 0.5 * (index == 0), **boxes}
            | ({"visible_mask": visible} if index == 0 else {}),
            "own": {"segmentation": amodal, "visible_segmentation": visible},
        }
        entries.append({"id": 11 + index, "image_id": 5, "category_id": category_id, "iscrowd": 0, **masks[schema]})
    return entries


def content(schema: str, file_name: str = "five.png") -> dict[str, Any]:
    """The JSON of one image."""
    return {
        "images": [{"id": 5, "file_name": file_name, "height": HEIGHT, "width": WIDTH}],
        "annotations": annotations(schema),
        "categories": [{"id": number, "name": name} for number, name in CLASSES],
    }


def cocoa_regions() -> list[dict[str, Any]]:
    """Both objects as regions of the original COCOA, and the ground they stand on."""
    hidden = AMODAL[0] & ~VISIBLE[0]
    masks = {"visible_mask": encode_mask(VISIBLE[0]), "invisible_mask": encode_mask(hidden)}
    common = {"isStuff": 0, "occlude_rate": 0}
    return [
        {"segmentation": OUTLINES[1], "name": "van", "order": 1, "area": 12, **common},
        {"segmentation": [0, 3, 8, 3, 8, 6, 0, 6], "name": "road", "order": 2, "area": 24, **common, "isStuff": 1},
        {"segmentation": OUTLINES[0], "name": "car", "order": 3, "area": 12, **common, "occlude_rate": 0.5, **masks},
    ]


def cocoa_content(file_name: str = "five.png") -> dict[str, Any]:
    """The JSON of one image in the original COCOA form."""
    image = {"id": 5, "file_name": file_name, "height": HEIGHT, "width": WIDTH}
    entry = {"id": 1, "image_id": 5, "author": "a", "url": "b", "size": 3, "regions": cocoa_regions()}
    return {"images": [image], "annotations": [entry]}


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_image(path: Path) -> Path:
    """A picture that is red on its left half, so that a mirrored one can be told."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    picture.paste((200, 0, 0), (0, 0, WIDTH // 2, HEIGHT))
    picture.save(path)
    return path


def official_tree(root: Path, kins: str = "kins") -> Path:
    """KINS (in either schema), COCOA-cls and COCOA at `root`, one image a split, where datasets/README.md says."""
    kins_files = {"kins": ("instances_train", "instances_val"), "kins_2020": ("update_train_2020", "update_test_2020")}
    for name, folder in zip(kins_files[kins], ("training", "testing"), strict=True):
        write_json(root / "KINS" / f"{name}.json", content(kins, "000000.png"))
        write_image(root / "KINS" / folder / "image_2" / "000000.png")
    for split in ("train", "val"):
        image = f"COCO_{split}2014_000000000005.png"
        write_image(root / "coco" / f"{split}2014" / image)
        folder = root / "cocoa" / "annotations"
        write_json(folder / f"COCO_amodal_{split}2014_with_classes.json", content("cocoa_cls", image))
        write_json(folder / f"COCO_amodal_{split}2014.json", cocoa_content(image))
    return root
