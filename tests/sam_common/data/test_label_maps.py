"""The reader of images with label maps: how files find each other, and what is said when they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.label_maps import label_maps_spec, read_label_map
from sam_common.data.remarks import log_once
from sam_common.errors import UserError
from sam_common.method import methods
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
    """Derived by hand: paths match but for the extension, subfolders are kept, unlabelled images are skipped."""
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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_equal_channels_are_one(spec: DatasetSpec, mode: str) -> None:
    """Equality: a grey map that a tool saved in three channels, or with an opaque alpha channel."""
    record = spec.load()[1]
    sound = read_label_map(record)
    Image.fromarray(PIXELS).convert(mode).save(record["sem_seg_file_name"])
    assert read_label_map(record).equal(sound)


def test_notes_beside_the_pictures(spec: DatasetSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Equality: JSON and text files, Thumbs.db and a list of classes change nothing, and are counted folder by folder;
    so are the images without a label map."""
    log_once.cache_clear()
    sound = spec.load()
    for name in ("images/one.json", "images/one.txt", "images/Thumbs.db", "labels/classes.txt", "labels/b/two.xml"):
        (tmp_path / name).write_text("x")
    caplog.clear()
    log_once.cache_clear()
    with caplog.at_level("INFO"):
        assert spec.load() == sound
    images, labels, unlabelled = caplog.messages
    assert images.endswith("skipped: .hidden.jpg, Thumbs.db, one.json, one.txt") and " 4 × " in images
    assert labels.endswith("skipped: classes.txt, b/two.xml") and "1 of 3 images" in unlabelled


def test_names_as_cityscapes_has_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Derived by hand: what images and label maps end in is left out of the id; other pictures beside them are counted.
    Without the suffixes the error names the keys, which then work."""
    for name in ("images/a/x_left.png", "labels/a/x_fine_labelIds.png", "labels/a/x_fine_color.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(tmp_path / name)
    (tmp_path / "classes.txt").write_text("road, car, sky")
    entry = {"NAME": "city", "FORMAT": "label_maps", "IMAGES": "images", "LABELS": "labels", "CLASSES": "classes.txt"}
    entry |= {key: str(tmp_path / path) for key, path in entry.items() if key not in ("NAME", "FORMAT")}
    with pytest.raises(UserError, match="LABEL_SUFFIX and IMAGE_SUFFIX"):
        reader_of("label_maps", entry).load()
    entry |= {"LABEL_SUFFIX": "_fine_labelIds", "IMAGE_SUFFIX": "_left"}
    (record,) = reader_of("label_maps", entry).load()
    assert record["image_id"] == "a/x" and read_label_map(record).shape == (2, 3)
    assert (
        record["sem_seg_file_name"].endswith("a/x_fine_labelIds.png") and "skipped: a/x_fine_color.png" in caplog.text
    )


def reader_of(name: str, entry: dict[str, str]) -> DatasetSpec:
    """What `DATASETS.REGISTER` makes of an entry."""
    (reader,) = (method.readers[name] for method in methods() if name in method.readers)
    keys = {**reader.needed, **reader.optional}
    return reader.make(entry["NAME"], **{keys[key]: value for key, value in entry.items() if key in keys})


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
        (Image.new("RGB", (3, 2), (1, 1, 2)), r"one\.png is coloured or transparent \(mode RGB\)"),
        (Image.new("RGBA", (3, 2), (1, 1, 1, 9)), r"one\.png is coloured or transparent \(mode RGBA\)"),
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
    "no image": (_remove("images/one.bmp"), r"1 label maps have no image .*images: .*one\.png; .*LABEL_SUFFIX"),
    "two of a name": (lambda f: Image.new("L", (3, 2)).save(f / "labels" / "one.bmp"), "have one name but for their"),
    "not an image": (lambda f: (f / "labels" / "one.png").write_text("hello"), r"one\.png cannot be read as an image"),
    "no label maps": (_remove("labels/one.png", "labels/b/two.tif"), "labels folder .*labels holds no pictures"),
    "notes alone": (
        lambda f: [path.rename(path.with_suffix(".txt")) for path in (f / "labels").rglob("*.*")],
        r"holds no pictures: 2 × .*: one\.txt, b/two\.txt",
    ),
    "lossy": (
        lambda f: Image.fromarray(PIXELS).save(f / "labels" / "one.png", "JPEG"),
        r"1 label maps are in a lossy format.*: .*one\.png \(JPEG\); save",
    ),
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
