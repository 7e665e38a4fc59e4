"""Small data sets of each kind of truth, without pictures, and models' outputs that fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from plug.structures import AmodalInstances
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import write_segment_ids
from sam_common.masks.rle import encode_mask
from sam_common.structures import Category, Instances, Vocabulary

VOCABULARY = (
    Category("cat", ("cat",), True, 10),
    Category("sky", ("sky",), False, 20),
    Category("dog", ("dog", "puppy"), True, 30),
)

PETS = (Category("cat", ("cat",), True, 10), Category("dog", ("dog",), True, 30))
_SMALL = (6, 6)


def tight_boxes(masks: Tensor) -> Tensor:
    """[N, 4] XYXY around [N, H, W] bool masks, zeros for an empty one."""
    places = [mask.nonzero() if mask.any() else torch.tensor([[0, 0], [-1, -1]]) for mask in masks]
    corners = [[*p.amin(0).flip(0).tolist(), *(p.amax(0) + 1).flip(0).tolist()] for p in places]
    return torch.tensor(corners, dtype=torch.float32).view(-1, 4).clamp(min=0)


def panoptic_world(
    folder: Path, ids: dict[int, list[list[int]]], segments: dict[int, list[dict[str, int]]]
) -> DatasetSpec:
    """Images by id: rows of segment ids, and their `segments_info` with category ids of `VOCABULARY`."""
    (folder / "images" / "a").mkdir(parents=True)
    content = {
        "images": [
            {"id": i, "file_name": f"a/{i}.jpg", "height": len(rows), "width": len(rows[0])} for i, rows in ids.items()
        ],
        "annotations": [{"image_id": i, "file_name": f"a/{i}.png", "segments_info": segments[i]} for i in ids],
        "categories": [{"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in VOCABULARY],
    }
    for index, rows in ids.items():
        write_segment_ids(folder / "panoptic" / "a" / f"{index}.png", torch.tensor(rows))
        (folder / "images" / "a" / f"{index}.jpg").touch()
    (folder / "panoptic.json").write_text(json.dumps(content))
    return coco_panoptic_spec(
        "tiny", json_file=folder / "panoptic.json", images=folder / "images", panoptic=folder / "panoptic"
    )


def semantic_world(folder: Path, maps: list[Tensor], vocabulary: Vocabulary = VOCABULARY) -> DatasetSpec:
    """Image k has the label map maps[k] [H, W] of class indices, 255 to ignore; image ids are the numbers as text."""
    records = []
    for number, labels in enumerate(maps):
        path = folder / f"{number}.png"
        Image.fromarray(labels.byte().numpy()).save(path)
        height, width = labels.shape
        record = {"file_name": f"{number}.jpg", "image_id": str(number), "height": height, "width": width}
        truth = {"sem_seg_file_name": str(path), "num_classes": len(vocabulary), "ignore_label": 255}
        records.append(record | truth)
    return DatasetSpec("tiny", lambda: records, lambda: vocabulary, truth="semantic")


def instance_world(
    truth: list[list[tuple[int, Tensor, bool]]],
    vocabulary: Vocabulary = VOCABULARY,
    *,
    size: tuple[int, int] = (10, 10),
) -> DatasetSpec:
    """Image k, of this size, has the instances truth[k]: (class, mask [H, W], crowd); image ids count from 0."""
    records = []
    for number, found in enumerate(truth):
        annotations = []
        for index, mask, crowd in found:
            x0, y0, x1, y1 = tight_boxes(mask[None])[0].tolist()
            entry: dict[str, Any] = {"bbox": [x0, y0, x1 - x0, y1 - y0], "bbox_mode": 1, "category_id": index}
            annotations.append(
                entry | {"iscrowd": int(crowd), "segmentation": encode_mask(mask), "area": int(mask.sum())}
            )
        record = {"file_name": f"{number}.jpg", "image_id": number, "height": size[0], "width": size[1]}
        records.append(record | {"annotations": annotations})
    return DatasetSpec("tiny", lambda: records, lambda: vocabulary, truth="instance")


def predict_panoptic(rows: list[list[int]], classes: list[int]) -> dict[str, Any]:
    """`panoptic_seg` whose segment k+1 is of classes[k]."""
    segments = [{"id": k + 1, "category_id": c, "isthing": True, "score": 1.0} for k, c in enumerate(classes)]
    return {"panoptic_seg": (torch.tensor(rows, dtype=torch.int32), segments)}


def predict_semantic(rows: Tensor | list[list[int]], num_classes: int = len(VOCABULARY)) -> dict[str, Any]:
    """`sem_seg` scores whose best class is the one of each pixel."""
    return {"sem_seg": torch.nn.functional.one_hot(torch.as_tensor(rows), num_classes).permute(2, 0, 1).float()}


def predict_instances(found: list[tuple[int, Tensor, float]], size: tuple[int, int]) -> dict[str, Any]:
    """`instances` of (class, mask [H, W] bool, score)."""
    masks = torch.stack([mask for _, mask, _ in found]) if found else torch.zeros(0, *size, dtype=torch.bool)
    scores = torch.tensor([score for *_, score in found])
    classes = torch.tensor([index for index, *_ in found], dtype=torch.int64)
    return {"instances": Instances(size, masks, scores, classes, tight_boxes(masks))}


def rectangle(rows: slice, columns: slice, size: tuple[int, int] = (10, 10)) -> Tensor:
    """A mask [H, W] that is true in these rows and columns."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def amodal_world(truth: list[list[tuple[int, Tensor, Tensor]]]) -> DatasetSpec:
    """Image k has the objects truth[k]: (class, amodal mask, visible mask); ids count from 1 through all images."""
    records, number = [], 0
    for index, objects in enumerate(truth):
        annotations = []
        for category, amodal, visible in objects:
            number += 1
            x0, y0, x1, y1 = tight_boxes(amodal[None])[0].tolist()
            masks = {"segmentation": encode_mask(amodal), "visible_segmentation": encode_mask(visible)}
            known = {"id": number, "category_id": category, "iscrowd": 0, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            annotations.append(known | masks | {"area": int(amodal.sum())})
        height, width = objects[0][1].shape if objects else _SMALL
        record = {"file_name": f"{index}.jpg", "image_id": index, "height": height, "width": width}
        records.append(record | {"annotations": annotations})
    return DatasetSpec("tiny", lambda: records, lambda: PETS, truth="amodal")


def asked(image: int, of: list[tuple[int | None, int | None]], scores: list[float] | None = None) -> dict[str, Any]:
    """The model's input: for each box the annotation and the class that it is of."""
    ids, classes = [annotation for annotation, _ in of], [category for _, category in of]
    return {
        "image_id": image,
        "annotation_ids": ids,
        "category_ids": classes,
        "box_scores": scores or [1.0] * len(of),
    }


def answered(
    amodal: list[Tensor],
    visible: list[Tensor] | None = None,
    *,
    scores: list[float] | None = None,
    windows: list[tuple[int, int, int, int]] | None = None,
    size: tuple[int, int] = _SMALL,
) -> dict[str, Any]:
    """The model's output, of masks in the frame of the image; windows cut them."""
    windows = windows or [(0, 0, size[1], size[0])] * len(amodal)
    parts = [
        [mask[top:bottom, left:right] for mask, (left, top, right, bottom) in zip(masks, windows, strict=True)]
        for masks in (amodal, visible or [])
        if masks or masks is amodal
    ]
    boxes = tight_boxes(torch.stack(amodal)) if amodal else torch.zeros(0, 4)
    shown = None if visible is None else (parts[1] if visible else [])
    return {
        "amodal": AmodalInstances(size, boxes, torch.tensor(scores or [1.0] * len(amodal)), windows, parts[0], shown)
    }
