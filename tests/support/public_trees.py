"""The public data sets in miniature: one drawn picture a split, in the trees of datasets/README.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sam_common.data.images import write_segment_ids
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.io.resources import resource
from sam_common.structures import Vocabulary
from tests.support.amodal_trees import official_tree

SIZE = (64, 48)

# COCO's own ids of its 80 things and 53 stuff classes, which have gaps.
COCO_IDS = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
COCO_IDS += [92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151]
COCO_IDS += [154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201)]
ADE20K_IDS = range(150)


def draw_public_trees(root: Path) -> None:
    """COCO, ADE20K, A-847, PC-459 and PC-59, KINS, COCOA, human segmentation and ISIC 2018 below `root`."""
    for split, folder in (("train", "training"), ("val", "validation")):
        coco, ade = root / "coco", root / "ADEChallengeData2016"
        annotations, images = coco / "annotations", coco / f"{split}2017"
        classes = _classes("coco")
        _draw_picture(images / "000000000001.jpg")
        _write_panoptic(annotations / f"panoptic_{split}2017.json", coco / f"panoptic_{split}2017", classes, COCO_IDS)
        _write_instances(annotations / f"instances_{split}2017.json", classes, COCO_IDS)
        _write_labels(coco / f"panoptic_semseg_{split}2017" / "000000000001.png", classes)
        classes = _classes("ade20k")
        _draw_picture(ade / "images" / folder / "000000000001.jpg")
        _write_panoptic(ade / f"ade20k_panoptic_{split}.json", ade / f"ade20k_panoptic_{split}", classes, ADE20K_IDS)
        _write_instances(ade / f"ade20k_instance_{split}.json", classes, ADE20K_IDS)
        _write_labels(ade / "annotations_detectron2" / folder / "000000000001.png", classes)
        for tree, words, ending in (
            ("ADE20K_2021_17_01/annotations_detectron2", "ade20k_full", "tif"),
            ("pascal_ctx_d2/annotations_ctx459", "pascal_context459", "tif"),
            ("pascal_ctx_d2/annotations_ctx59", "pascal_context59", "png"),
        ):
            _write_labels(root / tree / folder / f"000000000001.{ending}", _classes(words))
        for images in ("ADE20K_2021_17_01/images_detectron2", "pascal_ctx_d2/images"):
            _draw_picture(root / images / folder / "000000000001.jpg")
    official_tree(root)
    human, isic = root / "Human-Segmentation-Dataset", root / "ISIC2018"
    for name in ("1", "2", "3", "4", "201"):
        _draw_picture(human / "Training_Images" / f"{name}.jpg")
        _draw_mask(human / "Ground_Truth" / f"{name}.png")
    for split in ("Training", "Test"):
        for name in ("ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4"):
            _draw_picture(isic / f"ISIC2018_Task1-2_{split}_Input" / f"{name}.jpg")
            _draw_mask(isic / f"ISIC2018_Task1_{split}_GroundTruth" / f"{name}_segmentation.png")


def _classes(name: str) -> Vocabulary:
    return parse_vocabulary(resource(f"configs/vocabularies/{name}.txt"))


def _thing_and_stuff(classes: Vocabulary) -> list[int]:
    return [next(index for index, c in enumerate(classes) if c.is_thing is kind) for kind in (True, False)]


def _regions() -> Tensor:
    """[48, 64] 0 in the left half, which is red in the picture, and 1 in the right one."""
    return (torch.arange(SIZE[0]) >= SIZE[0] // 2).long().expand(SIZE[1], -1)


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _draw_picture(path: Path) -> None:
    picture = Image.new("RGB", SIZE, "tan")
    picture.paste("red", (0, 0, SIZE[0] // 2, SIZE[1]))
    _save(path, picture)


def _draw_mask(path: Path) -> None:
    _save(path, Image.fromarray((1 - _regions()).byte().numpy() * 255))


def _write_labels(path: Path, classes: Vocabulary) -> None:
    labels = torch.tensor(_thing_and_stuff(classes))[_regions()].numpy()
    _save(path, Image.fromarray(labels.astype("uint16" if len(classes) > 255 else "uint8")))


def _write_json(path: Path, annotations: list[dict], classes: Vocabulary, ids: Sequence[int]) -> None:
    image = {"id": 1, "file_name": "000000000001.jpg", "width": SIZE[0], "height": SIZE[1]}
    categories = [{"id": n, "name": c.name, "isthing": int(c.is_thing)} for n, c in zip(ids, classes, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": [image], "annotations": annotations, "categories": categories}))


def _write_panoptic(path: Path, folder: Path, classes: Vocabulary, ids: Sequence[int]) -> None:
    write_segment_ids(folder / "000000000001.png", _regions() + 1)
    half = {"iscrowd": 0, "area": SIZE[0] * SIZE[1] // 2}
    segments = [{"id": n + 1, "category_id": ids[c], **half} for n, c in enumerate(_thing_and_stuff(classes))]
    segments[0]["bbox"], segments[1]["bbox"] = [0, 0, 32, 48], [32, 0, 32, 48]
    _write_json(path, [{"image_id": 1, "file_name": "000000000001.png", "segments_info": segments}], classes, ids)


def _write_instances(path: Path, classes: Vocabulary, ids: Sequence[int]) -> None:
    things = [(index, c) for index, c in zip(ids, classes, strict=True) if c.is_thing]
    outline = [0, 0, SIZE[0] // 2, 0, SIZE[0] // 2, SIZE[1], 0, SIZE[1]]
    entry = {"id": 1, "image_id": 1, "iscrowd": 0, "category_id": things[0][0]}
    entry |= {"bbox": [0, 0, SIZE[0] // 2, SIZE[1]], "area": SIZE[0] * SIZE[1] // 2, "segmentation": [outline]}
    _write_json(path, [entry], tuple(c for _, c in things), [index for index, _ in things])
