"""A tiny data set in the COCO panoptic format, for the tests of readers and mappers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import write_segment_ids


@dataclass
class PanopticTree:
    """Folders and JSON of one data set; `content` may be changed before `spec()` writes it.

    One image, 12 wide and 8 high. Its left half is segment 1 (cat), the right half segment 70000 (sky), but for the
    2×2 block of a crowd of cats (segment 256) and one void pixel, at the top left and top right.
    """

    folder: Path
    content: dict

    def spec(self) -> DatasetSpec:
        (self.folder / "panoptic.json").write_text(json.dumps(self.content))
        return coco_panoptic_spec(
            "tiny",
            json_file=self.folder / "panoptic.json",
            images=self.folder / "images",
            panoptic=self.folder / "panoptic",
        )


@pytest.fixture
def tree(tmp_path) -> PanopticTree:
    ids = torch.full((8, 12), 70000)
    ids[:, :6] = 1
    ids[:2, :2] = 256
    ids[0, 11] = 0
    write_segment_ids(tmp_path / "panoptic" / "one.png", ids)
    (tmp_path / "images").mkdir()
    # the picture shows its annotation: red is 200 on segment 1, 100 elsewhere
    pixels = np.where(ids.numpy()[..., None] == 1, np.array([200, 50, 50]), np.array([100, 50, 50])).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "one.bmp")
    segments = [
        {"id": 256, "category_id": 3, "iscrowd": 1, "area": 4},
        {"id": 1, "category_id": 3, "iscrowd": 0, "area": 44},
        {"id": 70000, "category_id": 9, "iscrowd": 0, "area": 47},
    ]
    return PanopticTree(
        tmp_path,
        {
            "images": [{"id": 5, "file_name": "one.bmp", "height": 8, "width": 12}],
            "annotations": [{"image_id": 5, "file_name": "one.png", "segments_info": segments}],
            "categories": [
                {"id": 9, "name": "sky-other-merged", "isthing": 0},
                {"id": 3, "name": "cat", "isthing": 1, "synonyms": ["cat", "kitten "]},
            ],
        },
    )
