"""The reader of images with label maps: how files find each other, and what is said when they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.label_maps import label_maps_spec, read_label_map
from sam_common.errors import UserError
from sam_common.structures import Category

PIXELS = np.array([[0, 1, 1], [2, 255, 1]], np.uint8)


@pytest.fixture
def spec(tmp_path: Path) -> DatasetSpec:
    """`b/two.jpg` and `one.bmp`, 3 wide and 2 high, their label maps, and an image without one."""
    for name in ("one.bmp", "b/two.jpg", "unlabelled.png", ".hidden.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / "images" / name)
    (tmp_path / "labels" / "b").mkdir(parents=True)
    for name in ("one.png", "b/two.tif"):
        Image.fromarray(PIXELS).save(tmp_path / "labels" / name)
    (tmp_path / "classes.txt").write_text("road|street: stuff  # the first is 0\ncar\nsky:stuff\n")
    return label_maps_spec(
        "mine", images=tmp_path / "images", labels=tmp_path / "labels", classes=tmp_path / "classes.txt"
    )


def test_records_and_vocabulary(spec: DatasetSpec, tmp_path: Path) -> None:
    """Derived by hand: paths match but for the extension, subfolders are kept, unlabelled images are passed by."""
    assert spec.truth == "semantic"
    assert spec.load_vocabulary() == (
        Category("road", ("road", "street"), False, 0),
        Category("car", ("car",), True, 1),
        Category("sky", ("sky",), False, 2),
    )
    rest = {"height": 2, "width": 3, "num_classes": 3, "ignore_label": 255}
    assert spec.load() == [
        {
            "file_name": str(tmp_path / "images" / "b" / "two.jpg"),
            "image_id": "b/two",
            "sem_seg_file_name": str(tmp_path / "labels" / "b" / "two.tif"),
            **rest,
        },
        {
            "file_name": str(tmp_path / "images" / "one.bmp"),
            "image_id": "one",
            "sem_seg_file_name": str(tmp_path / "labels" / "one.png"),
            **rest,
        },
    ]


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_label_map_by_hand(spec: DatasetSpec, mode: str) -> None:
    """The same indices from 8 bits, a palette image's indices (not its colours) and 16 bits; ignored pixels are -1."""
    record = spec.load()[1]
    image = Image.fromarray(PIXELS.astype(np.uint16)) if mode == "I;16" else Image.fromarray(PIXELS)
    if mode == "P":
        image = Image.fromarray(PIXELS, "P")
        image.putpalette([200, 10, 10] * 256)
    image.save(record["sem_seg_file_name"])
    assert Image.open(record["sem_seg_file_name"]).mode == mode
    assert read_label_map(record).tolist() == [[0, 1, 1], [2, -1, 1]]


def test_more_classes_than_a_byte(spec: DatasetSpec, tmp_path: Path) -> None:
    """Edge case: with 300 classes, 255 is a class and 65535 is ignored; with 255 classes 255 still is ignored."""
    (tmp_path / "classes.txt").write_text("\n".join(f"class {index}" for index in range(255)))
    assert spec.load()[1]["ignore_label"] == 255
    (tmp_path / "classes.txt").write_text("\n".join(f"class {index}" for index in range(300)))
    record = spec.load()[1]
    Image.fromarray(np.array([[255, 299, 65535], [0, 0, 0]], np.uint16)).save(record["sem_seg_file_name"])
    assert read_label_map(record).tolist() == [[255, 299, -1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.full((2, 3), 3, np.uint8)), r"one\.png has the value 3, but there are 3 classes"),
        (Image.new("L", (4, 2)), r"one\.png is 4×2 but its image is 3×2"),
        (Image.new("RGB", (3, 2)), r"one\.png: a label map has one channel of class indices, this one is RGB"),
    ],
)
def test_wrong_label_map(spec: DatasetSpec, image: Image.Image, message: str) -> None:
    """Error: a value that is no class, another size, a coloured picture."""
    record = spec.load()[1]
    image.save(record["sem_seg_file_name"])
    with pytest.raises(UserError, match=message):
        read_label_map(record)


def _remove(*names: str):
    return lambda folder: [(folder / name).unlink() for name in names]


BROKEN = {
    "no image": (_remove("images/one.bmp"), r"label map .*one\.png has no image one\.\*"),
    "two of a name": (lambda f: Image.new("L", (3, 2)).save(f / "labels" / "one.bmp"), "have one name but for their"),
    "not an image": (lambda f: (f / "labels" / "one.png").write_text("hello"), r"one\.png cannot be read as an image"),
    "no label maps": (_remove("labels/one.png", "labels/b/two.tif"), "labels folder .*labels holds no files"),
    "no classes": (_remove("classes.txt"), r"mine: there is no vocabulary file .*classes\.txt"),
    "wrong classes": (lambda f: (f / "classes.txt").write_text("road, road"), r"classes\.txt, line 1: the word 'road'"),
    "no folder": (lambda f: (f / "labels").rename(f / "elsewhere"), "mine: there is no labels folder .*labels;"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_folders_are_one_clear_line(spec: DatasetSpec, tmp_path: Path, damage, message: str) -> None:
    """Error: what does not fit together is named, in one line."""
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        spec.load()
    assert "\n" not in str(error.value)
