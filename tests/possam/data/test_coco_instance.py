"""The reader of COCO instances: what it reads, and one clear line for everything that can be wrong with the JSON."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from possam.data import coco_instance
from possam.data.coco_instance import NO_BOX, NO_MASK, OTHER_AREA, OTHER_BOX, coco_instance_spec
from sam_common.data.coco_json import CROWD, measure
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.remarks import log_once
from sam_common.data.vocabulary_file import with_synonyms
from sam_common.errors import UserError
from sam_common.structures import Category

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]
CONTENT: dict = {
    "images": [
        {"id": 5, "file_name": "a/five.png", "height": 6, "width": 8},
        {"id": "six", "file_name": "six.png", "height": 6, "width": 8},
    ],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 9, "bbox": [1, 1, 3, 3], "segmentation": SQUARE, "area": 9.0},
        {
            "id": 2,
            "image_id": 5,
            "category_id": 3,
            "bbox": [6, 0, 2, 6],
            "segmentation": {"size": [6, 8], "counts": [40, 8]},
            "iscrowd": 1,
        },
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat", "synonyms": ["cat", "kitten"]}],
}


@pytest.fixture(autouse=True)
def _warn_again() -> None:
    """Each test sees its own warnings."""
    log_once.cache_clear()


@pytest.fixture
def content() -> dict:
    return copy.deepcopy(CONTENT)


def _spec(folder: Path, content: dict) -> DatasetSpec:
    for image in CONTENT["images"]:
        path = folder / "images" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    (folder / "instances.json").write_text(json.dumps(content))
    return coco_instance_spec("mine", json_file=folder / "instances.json", images=folder / "images")


def test_records_and_vocabulary(tmp_path: Path, content: dict) -> None:
    """Derived by hand: things only; indices follow `categories`; RLE is compressed, a missing area is counted; an
    image without annotations stays."""
    spec = _spec(tmp_path, content)
    assert spec.truth == "instance"
    assert spec.load_vocabulary() == (Category("dog", ("dog",), True, 9), Category("cat", ("cat", "kitten"), True, 3))
    first, second = spec.load()
    square = {"id": 1, "bbox": [1, 1, 3, 3], "bbox_mode": 1, "category_id": 0, "iscrowd": 0, "area": 9.0}
    crowd = {"id": 2, "bbox": [6, 0, 2, 6], "bbox_mode": 1, "category_id": 1, "iscrowd": 1, "area": 8}
    assert first == {
        "file_name": str(tmp_path / "images" / "a" / "five.png"),
        "image_id": 5,
        "height": 6,
        "width": 8,
        "annotations": [
            square | {"segmentation": SQUARE},
            crowd | {"segmentation": {"size": [6, 8], "counts": "X18"}},
        ],
    }
    assert second["image_id"] == "six" and second["annotations"] == []
    assert json.loads(json.dumps(first)) == first


def test_ids_are_given_where_there_are_none(tmp_path: Path, content: dict) -> None:
    """Edge case: annotations without ids are numbered."""
    for annotation in content["annotations"]:
        del annotation["id"]
    assert [a["id"] for a in _spec(tmp_path, content).load()[0]["annotations"]] == [1, 2]


def test_words_of_a_file(tmp_path: Path, content: dict) -> None:
    """`VOCABULARY` of an entry gives the synonyms, by class name; ids and order stay."""
    spec = _spec(tmp_path, content)
    (tmp_path / "words.txt").write_text("cat = cat|pussycat\ndog|hound\nzebra")
    named = with_synonyms(spec, tmp_path / "words.txt")
    assert [(c.name, c.synonyms, c.id) for c in named.load_vocabulary()] == [
        ("dog", ("dog", "hound"), 9),
        ("cat", ("cat", "pussycat"), 3),
    ]
    assert named.load() == spec.load() and named.files["vocabulary"] == str(tmp_path / "words.txt")


NOTHING: dict[str, Any] = {
    "null": None,
    "an empty list": [],
    "an empty polygon": [[]],
    "two corners": [[1, 1, 4, 4]],
    "no pixel": [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]],
    "no run": {"size": [6, 8], "counts": []},
    "no text": {"size": [6, 8], "counts": ""},
    "an empty RLE": {"size": [6, 8], "counts": [48]},
    "nothing": {},
}


@pytest.mark.parametrize("value", NOTHING.values(), ids=NOTHING)
def test_annotations_without_a_mask(tmp_path: Path, content: dict, value: Any, caplog) -> None:
    """They are left out of training and evaluation alike, and counted; where nothing else is there, refused."""
    sound = _spec(tmp_path, content).load()
    content["annotations"] += [{"id": 3, "image_id": 5, "category_id": 9, "segmentation": value, "iscrowd": False}]
    assert _spec(tmp_path, content).load() == sound
    assert f"1 × {NO_MASK}: 3" in caplog.text
    content["annotations"] = content["annotations"][2:]
    with pytest.raises(UserError, match=r"nothing is left .*: 3$"):
        _spec(tmp_path, content).load()


@pytest.mark.parametrize(
    "polygon",
    [[1.1, 1.1, 1.2, 1.1, 1.2, 1.2], [3.6, 0, 3.9, 0, 3.9, 6, 3.6, 6], [10, 1, 13, 1, 13, 4, 10, 4]],
    ids=["small", "between two columns", "beside the image"],
)
def test_a_box_and_an_area_make_no_mask(tmp_path: Path, content: dict, polygon: list[float], caplog) -> None:
    """Edge: an outline that covers no pixel is left out, though the file gives its box and an area."""
    left, top, right, bottom = *polygon[:2], *polygon[4:6]
    more = {"id": 3, "image_id": 5, "category_id": 9, "segmentation": [polygon], "area": 9.0}
    content["annotations"].append(more | {"bbox": [left, top, right - left, bottom - top]})
    assert [a["id"] for a in _spec(tmp_path, content).load()[0]["annotations"]] == [1, 2]
    assert f"1 × {NO_MASK}: 3" in caplog.text


def test_plausible_annotations_are_not_measured(tmp_path: Path, content: dict, monkeypatch) -> None:
    """Invariant: a box around the outline and an area are taken from the file; only an RLE without an area is drawn."""
    measured: list[Any] = []
    monkeypatch.setattr(coco_instance, "measure", lambda *given: measured.append(given[0]) or measure(*given))
    _spec(tmp_path, content).load()
    assert measured == [{"size": [6, 8], "counts": "X18"}]


def test_a_missing_segmentation_is_none(tmp_path: Path, content: dict, caplog) -> None:
    """Edge case: boxes only in one annotation of two, which then is left out."""
    del content["annotations"][1]["segmentation"]
    assert [a["id"] for a in _spec(tmp_path, content).load()[0]["annotations"]] == [1]
    assert f"1 × {NO_MASK}: 2" in caplog.text


@pytest.mark.parametrize("value", [SQUARE[0], [[1, 1], [4, 1], [4, 4], [1, 4]]], ids=["flat", "points"])
def test_one_polygon_in_other_forms(tmp_path: Path, content: dict, value: Any) -> None:
    """Equality: numbers without the list around them, or points, are the polygon that they list."""
    sound = _spec(tmp_path, content).load()
    content["annotations"][0]["segmentation"] = value
    assert _spec(tmp_path, content).load() == sound


def test_crowds(tmp_path: Path, content: dict, caplog) -> None:
    """Counted, since a tool that writes every RLE as a crowd trains nothing; a file of crowds only is refused."""
    assert len(_spec(tmp_path, content).load()[0]["annotations"]) == 2
    assert f"1 × {CROWD}: 2" in caplog.text
    content["annotations"][0]["iscrowd"] = True
    with pytest.raises(UserError, match="nothing is left .*2 × a crowd.*iscrowd to 0.*: 1, 2"):
        _spec(tmp_path, content).load()


@pytest.mark.parametrize(
    ("value", "other"), [(0, 1), (False, True), (0.0, 1.0), ("0", "1"), ("false", "True"), (None, "1.0")]
)
def test_flags(tmp_path: Path, content: dict, value: Any, other: Any) -> None:
    """Case table: "0" is no crowd."""
    sound = _spec(tmp_path, content).load()
    content["annotations"][0]["iscrowd"] = value
    content["annotations"][1]["iscrowd"] = other
    assert _spec(tmp_path, content).load() == sound


def test_numbers_and_ids_as_other_tools_write_them(tmp_path: Path, content: dict) -> None:
    """Equality: sizes and classes as floats or texts, ids of images as texts where `images` has numbers."""
    sound = _spec(tmp_path, content).load()
    vocabulary = _spec(tmp_path, content).load_vocabulary()
    content["images"][0] |= {"height": 6.0, "width": "8"}
    content["annotations"][0] |= {"image_id": "5", "category_id": 9.0, "id": 1.0}
    content["annotations"][1] |= {"image_id": 5.0, "category_id": "3"}
    content["categories"][0]["id"] = "9"
    assert _spec(tmp_path, content).load() == sound and _spec(tmp_path, content).load_vocabulary() == vocabulary
    content["images"][0]["id"] = "5"
    content["annotations"][0]["image_id"] = 5
    assert _spec(tmp_path, content).load()[0]["annotations"] == sound[0]["annotations"]


BOXES: dict[str, tuple[Any, bool]] = {
    "tight": ([1, 1, 3, 3], True),
    "drawn by hand": ([0.4, 0.5, 4.1, 3.9], True),
    "null": (None, False),
    "empty": ([], False),
    "half a box": ([1, 2], False),
    "negative height": ([1, 4, 3, -3], False),
    "no width": ([1, 1, 0, 3], False),
    "a text": ("1,1,3,3", False),
    "not a number": ([1, 1, float("nan"), 3], False),
    "beyond all": ([1, 1, 10**400, 3], False),
    "another's": ([5, 3, 3, 3], False),
    "COCO's 2229097, near the origin": ([1.24, 1.0, 3.4, 3.3], True),
}


@pytest.mark.parametrize(("box", "kept"), BOXES.values(), ids=BOXES)
def test_boxes(tmp_path: Path, content: dict, box: Any, kept: bool, caplog) -> None:
    """A box that cannot be the mask's is taken from the mask, and counted; the file's stays where it may be."""
    content["annotations"][0]["bbox"] = box
    assert _spec(tmp_path, content).load()[0]["annotations"][0]["bbox"] == (box if kept else [1, 1, 3, 3])
    assert (f"{OTHER_BOX if box else NO_BOX}: 1" in caplog.text) is not kept


@pytest.mark.parametrize(("near", "far"), [(3, 30), (20, 60)])
def test_boxes_as_corners(tmp_path: Path, content: dict, near: int, far: int) -> None:
    """[x0, y0, x1, y1] in the place of [x, y, width, height], though it may overlap well near the origin."""
    content["images"][1] |= {"height": 80, "width": 90}
    square = [[near, near, far, near, far, far, near, far]]
    more = {"id": 3, "image_id": "six", "category_id": 9, "segmentation": square, "bbox": [near, near, far, far]}
    content["annotations"].append(more)
    (found,) = _spec(tmp_path, content).load()[1]["annotations"]
    assert found["bbox"] == [near, near, far - near, far - near]


@pytest.mark.parametrize("area", [None, 0, -4, "9", float("nan")])
def test_areas(tmp_path: Path, content: dict, area: Any, caplog) -> None:
    """What is no positive number is counted from the mask, 3 × 3 pixels, and said unless nothing was given."""
    content["annotations"][0]["area"] = area
    assert _spec(tmp_path, content).load()[0]["annotations"][0]["area"] == 9
    assert (f"{OTHER_AREA}: 1" in caplog.text) is (area is not None)


@pytest.mark.parametrize("name", ["dog", "animals"])
def test_the_root_of_the_classes(tmp_path: Path, content: dict, name: str, caplog) -> None:
    """Roboflow's first category, which has the name of a class or another, is no class; records and warning agree. A
    class that is its own supercategory, as COCO's person, stays."""
    sound, vocabulary = _spec(tmp_path, content).load(), _spec(tmp_path, content).load_vocabulary()
    for entry in content["categories"]:
        entry["supercategory"] = name
    content["categories"].insert(0, {"id": 0, "name": name, "supercategory": "none"})
    spec = _spec(tmp_path, content)
    assert spec.load() == sound and spec.load_vocabulary() == vocabulary
    assert caplog.text.count(f"left out of the classes: {name}") == 1
    content["annotations"][0]["category_id"] = 0  # used, it is a class
    if name == "animals":
        assert [category.name for category in _spec(tmp_path, content).load_vocabulary()] == ["animals", "dog", "cat"]


def test_classes_without_annotations(tmp_path: Path, content: dict, caplog) -> None:
    """A warning names them; they stay."""
    content["categories"].append({"id": 1, "name": "zebra", "supercategory": "zebra"})
    spec = _spec(tmp_path, content)
    assert spec.load() and len(spec.load_vocabulary()) == 3
    assert "1 × a class without an annotation: zebra" in caplog.text


BROKEN = {
    "no images": (lambda c: c.update(images=[]), "images is empty"),
    "image id twice": (lambda c: c["images"][1].update(id=5), "two entries of images have the id 5"),
    "no height": (lambda c: c["images"][0].pop("height"), "image 5: 'height' is missing"),
    "no pixels": (lambda c: c["images"][0].update(width=0), "image 5: width is 0"),
    "leaves the folder": (lambda c: c["images"][0].update(file_name="/etc/passwd"), "must be a path inside"),
    "two lines": (lambda c: c["images"][0].update(file_name="a\nb"), "'file_name' is 'a.nb', with characters that are"),
    "half a character": (lambda c: c["categories"][1].update(synonyms=["\ud83d"]), "'synonyms' is .*ud83d', with char"),
    "image is gone": (lambda c: c["images"][0].update(file_name="a/two.png"), "no file of images .*two.png"),
    "annotations is a dict": (lambda c: c.update(annotations={}), "'annotations' is of the wrong type, dict"),
    "annotation is text": (lambda c: c["annotations"].append("x"), "annotations: 'image_id' is missing"),
    "annotation id twice": (lambda c: c["annotations"][1].update(id=1), "annotation 1: two have this id"),
    "unknown image": (lambda c: c["annotations"][0].update(image_id=7), "annotation 1: images has no entry .* 7"),
    "unknown category": (lambda c: c["annotations"][0].update(category_id=4), "its category_id 4 is not in categories"),
    "a size that is none": (lambda c: c["images"][0].update(width=8.5), "image 5: 'width' is 8.5, it must be a whole"),
    "no flag": (lambda c: c["annotations"][0].update(iscrowd="maybe"), "annotation 1: 'iscrowd' is 'maybe', it must"),
    "category twice": (lambda c: c["categories"][1].update(name="dog"), "2 categories have the name 'dog'; give each"),
    "an id that is none": (
        lambda c: c["annotations"][0].update(image_id=None),
        "'image_id' is None, it must be a whole",
    ),
    "bad polygon": (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "annotation 1: a polygon is"),
    "other size": (lambda c: c["images"][0].update(height=7), r"annotation 2: the RLE's size is \[6, 8\]"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_json_is_one_clear_line(tmp_path: Path, content: dict, damage, message: str) -> None:
    """Error: every contradiction names the file and the entry, in one line."""
    damage(content)
    with pytest.raises(UserError, match=message) as error:
        _spec(tmp_path, content).load()
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
