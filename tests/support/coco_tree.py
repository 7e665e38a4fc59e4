"""COCO in miniature, in the tree and under the class ids that Detectron2's catalogs and other projects' expect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sam_common.data.images import write_segment_ids

SIZE = (96, 72)
SPLITS = ("train2017", "val2017")


def draw_coco(root: Path, categories: Sequence[Mapping[str, Any]], images: int = 2) -> None:
    """Pictures of a person, a chair, and grass below `root`/coco, with the instances, the segments and both label maps.

    Args:
        categories: Detectron2's `COCO_CATEGORIES`, things and stuff.
    """
    ids = {name: next(c["id"] for c in categories if c["name"] == name) for name in ("person", "chair", "grass-merged")}
    things = [c for c in categories if c["isthing"]]
    stuff = [c for c in categories if not c["isthing"]]
    contiguous = {c["id"]: n for n, c in enumerate([*things, *stuff])}
    background = {c["id"]: n for n, c in enumerate(stuff, 1)}  # Panoptic FPN's label maps: 0 is any thing
    for split in SPLITS:
        folder, panoptic, instances = root / "coco" / split, [], []
        for number in range(1, images + 1):
            name = f"{number:012d}"
            regions = _regions(number)
            colors = torch.tensor([[40, 160, 40], [220, 40, 40], [60, 60, 220]], dtype=torch.uint8)
            _save(folder / f"{name}.jpg", colors[regions])
            write_segment_ids(_made(root / "coco" / f"panoptic_{split}" / f"{name}.png"), regions + 1)
            found = [ids["grass-merged"], ids["person"], ids["chair"]]
            for tree, indices in (("semseg", contiguous), ("stuff", background)):
                labels = torch.tensor([indices.get(c, 0) for c in found], dtype=torch.uint8)
                _save(root / "coco" / f"panoptic_{tree}_{split}" / f"{name}.png", labels[regions])
            segments = [_segment(n + 1, category, regions == n) for n, category in enumerate(found)]
            panoptic.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
            for n, segment in enumerate(segments[1:], 1):
                x, y, w, h = segment["bbox"]
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                entry = {**segment, "id": 10 * number + n, "image_id": number, "segmentation": [outline]}
                instances.append(entry)
        pictures = [
            {"id": n, "file_name": f"{n:012d}.jpg", "width": SIZE[0], "height": SIZE[1]} for n in range(1, images + 1)
        ]
        for task, entries, classes in (("panoptic", panoptic, categories), ("instances", instances, things)):
            content = {"info": {}, "images": pictures, "annotations": entries, "categories": list(classes)}
            _made(root / "coco" / "annotations" / f"{task}_{split}.json").write_text(json.dumps(content))


def _regions(number: int) -> Tensor:
    """[72, 96] 0 grass, 1 a person, 2 a chair; another place in each picture."""
    regions = torch.zeros(SIZE[1], SIZE[0], dtype=torch.long)
    regions[8:64, 8 * number : 8 * number + 24] = 1
    regions[32:64, 56:88] = 2
    return regions


def _segment(number: int, category: int, mask: Tensor) -> dict[str, Any]:
    rows, columns = mask.nonzero().unbind(1)
    x, y = int(columns.min()), int(rows.min())
    box = [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]
    return {"id": number, "category_id": category, "bbox": box, "area": int(mask.sum()), "iscrowd": 0}


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _save(path: Path, pixels: Tensor) -> None:
    Image.fromarray(pixels.numpy()).save(_made(path))
