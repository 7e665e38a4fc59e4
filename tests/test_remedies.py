"""What a message or a page advises about annotations works: taken literally, the files are read, and rightly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.data.image_masks import read_labels
from plug.data.annotations import read_amodal
from possam.data.segments import read_targets
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import write_segment_ids
from sam_common.errors import UserError
from sam_common.method import methods

HEIGHT, WIDTH = 6, 8
SQUARE = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
SQUARE[1:4, 2:6] = True
POLYGON = [[2, 1, 6, 1, 6, 4, 2, 4]]
SEEN = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
SEEN[1:4, 2:4] = True
PHOTO = Image.effect_noise((WIDTH, HEIGHT), 99)  # what a JPEG cannot keep


class Files:
    """A data set in a folder, in the one format or the other, sound until a case spoils it."""

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self.form = folder, form
        self.content = CONTENTS[form]() if form in CONTENTS else None
        self.keys: dict[str, str] = {}
        self.picture("images/a.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        if form == "coco_panoptic":
            write_segment_ids(folder / "maps/a.png", SQUARE.int() + 1)
        elif form in ("label_maps", "image_masks"):
            self.picture("maps/a.png", SQUARE.numpy().astype(np.uint8))
            self.text("classes.txt", "road\nsign" if form == "label_maps" else "sign")

    def picture(self, name: str, pixels: Any, **options: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))).save(path, **options)

    def text(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def move(self, old: str, new: str) -> None:
        (self.folder / new).parent.mkdir(exist_ok=True)
        (self.folder / old).rename(self.folder / new)

    @property
    def annotation(self) -> dict[str, Any]:
        entry = self.content["annotations"][0]
        return entry["regions"][0] if self.form == "cocoa" else entry

    def spec(self) -> DatasetSpec:
        """The data set as an entry of `DATASETS.REGISTER` names it."""
        (reader,) = (method.readers[self.form] for method in methods() if self.form in method.readers)
        if self.content is not None:
            self.text("a.json", json.dumps(self.content))
        paths = {"JSON": "a.json", "IMAGES": "images", "CLASSES": "classes.txt"} | dict.fromkeys(
            ("PANOPTIC", "LABELS", "MASKS"), "maps"
        )
        keys = {**reader.needed, **reader.optional}
        given = {key: str(self.folder / path) for key, path in paths.items() if key in keys} | self.keys
        return reader.make("mine", **{keys[key]: value for key, value in given.items()})

    def is_right(self) -> bool:
        """Whether the square, and of amodal files what is seen of it, is what a model learns."""
        (record,) = self.spec().load()
        if self.form in ("coco_amodal", "cocoa"):
            whole, seen = read_amodal(record)
            return torch.equal(whole[0], SQUARE) and torch.equal(seen[0], SEEN)
        if self.form == "image_masks":
            return torch.equal(read_labels(record) == 1, SQUARE)
        classes, masks = read_targets(record, lambda layer: layer)
        names = [category.name for category in self.spec().load_vocabulary()]
        return any(torch.equal(mask, SQUARE) and names[c] == "sign" for c, mask in zip(classes, masks, strict=True))


def coco(**annotation: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "segmentation": POLYGON, **annotation}],
        "categories": [{"id": 3, "name": "sign"}],
    }


def panoptic() -> dict[str, Any]:
    segments = [{"id": 1, "category_id": 4}, {"id": 2, "category_id": 3}]
    return coco() | {
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 3, "name": "sign", "isthing": 1}, {"id": 4, "name": "road", "isthing": 0}],
    }


HALF = [[2, 1, 4, 1, 4, 4, 2, 4]]
OTHER_HALF = [[4, 1, 6, 1, 6, 4, 4, 4]]
CONTENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "coco_instance": lambda: coco(bbox=[2, 1, 4, 3]),
    "coco_panoptic": panoptic,
    "coco_amodal": lambda: coco(visible_segmentation=HALF),
    "cocoa": lambda: {
        "images": coco()["images"],
        "annotations": [{"image_id": 1, "regions": [{"segmentation": POLYGON[0], "visible_mask": HALF}]}],
    },
}


class Case(NamedTuple):
    form: str
    spoil: Callable[[Files], object]
    message: str
    remedy: Callable[[Files], object]


def two_signs(f: Files) -> None:
    f.content["categories"].append({"id": 9, "name": "sign"})
    f.content["annotations"].append({**f.annotation, "id": 2, "category_id": 9})


def keep_one(f: Files) -> None:
    f.content["categories"].pop()
    f.content["annotations"][1]["category_id"] = 3


def map_of(value: int) -> np.ndarray:
    return np.where(SQUARE.numpy(), 1, value).astype(np.uint8)


CASES = {
    "boxes only": Case(
        "coco_instance",
        lambda f: f.annotation.update(segmentation=[]),
        "export masks or polygons",
        lambda f: f.annotation.update(segmentation=POLYGON),
    ),
    "a brush that marks crowds": Case(
        "coco_instance",
        lambda f: f.annotation.update(iscrowd=1),
        "set iscrowd to 0",
        lambda f: f.annotation.update(iscrowd=0),
    ),
    "a name twice: one is kept": Case("coco_instance", two_signs, "or keep one", keep_one),
    "a name twice: another name": Case(
        "coco_instance",
        two_signs,
        "give each a name of its own",
        lambda f: f.content["categories"][1].update(name="board"),
    ),
    "an id twice: others": Case(
        "coco_instance",
        lambda f: f.content["annotations"].append({**f.annotation}),
        "give each its own",
        lambda f: f.content["annotations"][1].update(id=2),
    ),
    "an id twice: none": Case(
        "coco_instance",
        lambda f: f.content["annotations"].append({**f.annotation}),
        "leave out all ids",
        lambda f: [entry.pop("id") for entry in f.content["annotations"]],
    ),
    "a place for an id": Case(
        "coco_instance",
        lambda f: f.annotation.update(category_id=0),
        "its category_id 0 is not in categories",
        lambda f: f.annotation.update(category_id=3),
    ),
    "a path from elsewhere": Case(
        "coco_instance",
        lambda f: f.content["images"][0].update(file_name="/data/a.png"),
        "must be a path inside",
        lambda f: f.content["images"][0].update(file_name="a.png"),
    ),
    "a folder that is elsewhere": Case(
        "coco_instance",
        lambda f: f.move("images", "elsewhere/images"),
        "there is no images folder .*put it there",
        lambda f: f.move("elsewhere/images", "images"),
    ),
    "a flag in words": Case(
        "coco_panoptic",
        lambda f: f.content["categories"][0].update(isthing="yes"),
        "it must be 0 or 1",
        lambda f: f.content["categories"][0].update(isthing=1),
    ),
    "ids in a JPEG": Case(
        "coco_panoptic",
        lambda f: f.picture("maps/a.png", PHOTO.convert("RGB"), format="JPEG"),
        "save it as PNG",
        lambda f: write_segment_ids(f.folder / "maps/a.png", SQUARE.int() + 1),
    ),
    "a grey panoptic PNG": Case(
        "coco_panoptic",
        lambda f: f.picture("maps/a.png", map_of(2)),
        r"id = R \+ 256 G \+ 65536 B",
        lambda f: f.picture("maps/a.png", np.stack([SQUARE + 1, 0 * SQUARE, 0 * SQUARE], -1).astype(np.uint8)),
    ),
    "label maps in a JPEG": Case(
        "label_maps",
        lambda f: f.picture("maps/a.png", map_of(0), format="JPEG"),
        "save the originals as PNG",
        lambda f: f.picture("maps/a.png", map_of(0)),
    ),
    "coloured label maps": Case(
        "label_maps",
        lambda f: f.picture("maps/a.png", np.stack([map_of(0), map_of(0), 0 * map_of(0)], -1)),
        "save these numbers as a grey PNG",
        lambda f: f.picture("maps/a.png", map_of(0)),
    ),
    "a class that is missing: added": Case(
        "label_maps",
        lambda f: f.picture("maps/a.png", map_of(2)),
        "has the value 2, but there are 2 classes",
        lambda f: f.text("classes.txt", "road\nsign\nsky"),
    ),
    "a class that is missing: none": Case(
        "label_maps",
        lambda f: f.picture("maps/a.png", map_of(2)),
        "255 marks pixels without a class",
        lambda f: f.picture("maps/a.png", map_of(255)),
    ),
    "names that differ": Case(
        "label_maps",
        lambda f: (f.move("maps/a.png", "maps/a_ids.png"), f.move("images/a.png", "images/a_left.png")),
        "give LABEL_SUFFIX and IMAGE_SUFFIX",
        lambda f: f.keys.update(LABEL_SUFFIX="_ids", IMAGE_SUFFIX="_left"),
    ),
    "two of a name": Case(
        "label_maps",
        lambda f: f.picture("maps/a.bmp", map_of(0)),
        "keep one of them",
        lambda f: (f.folder / "maps/a.bmp").unlink(),
    ),
    "masks with a suffix": Case(
        "image_masks",
        lambda f: f.move("maps/a.png", "maps/a_mask.png"),
        "1 have no masks",
        lambda f: f.keys.update(MASK_SUFFIX="_mask"),
    ),
    "masks of classes in a JPEG": Case(
        "image_masks",
        lambda f: (f.text("classes.txt", "sign\nroad"), f.picture("maps/a.png", map_of(0), format="JPEG")),
        "save the originals as PNG",
        lambda f: f.picture("maps/a.png", map_of(0)),
    ),
    "an object without a visible mask": Case(
        "coco_amodal",
        lambda f: f.content["annotations"].append({**f.annotation, "id": 2, "visible_segmentation": None}),
        "where nothing hides the object, repeat its segmentation",
        lambda f: f.content["annotations"][1].update(visible_segmentation=POLYGON),
    ),
    "an ordinary instance file": Case(
        "coco_amodal",
        lambda f: f.annotation.pop("visible_segmentation"),
        "by any of the keys .*occluded_mask",
        lambda f: f.annotation.update(occluded_mask=OTHER_HALF),
    ),
    "a rate in words": Case(
        "cocoa",
        lambda f: f.annotation.update(occlude_rate="half"),
        "is no share from 0 to 1",
        lambda f: f.annotation.update(occlude_rate=0.5),
    ),
    "a rate without a mask": Case(
        "cocoa",
        lambda f: (f.annotation.pop("visible_mask"), f.annotation.update(occluded_rate=0.5)),
        "but no mask of what is seen or hidden",
        lambda f: f.annotation.update(invisible_mask=OTHER_HALF),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_remedies(case: Case, tmp_path: Path) -> None:
    """Sound files are right; spoilt ones end in one line with the advice; with the advice followed they are right."""
    files = Files(tmp_path, case.form)
    assert files.is_right()
    case.spoil(files)
    with pytest.raises(UserError, match=case.message) as error:
        files.is_right()
    assert "\n" not in str(error.value)
    case.remedy(files)
    assert files.is_right()


def test_the_annotation_of_one_image(tmp_path: Path) -> None:
    """COCOA's file of one image: its folder is named instead, as the line says."""
    files = Files(tmp_path, "cocoa")
    files.content = files.content["annotations"][0]
    with pytest.raises(UserError, match="name its folder instead"):
        files.is_right()
    files.content = None
    files.keys["JSON"] = str(tmp_path)
    assert files.is_right()
