"""The reader of COCO instances: what it reads, and one clear line for everything that can be wrong with the JSON."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from PIL import Image

from possam.data.coco_instance import coco_instance_spec
from sam_common.data.dataset_spec import DatasetSpec
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
            "bbox": [0, 0, 8, 6],
            "segmentation": {"size": [6, 8], "counts": [40, 8]},
            "iscrowd": 1,
        },
    ],
    "categories": [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat", "synonyms": ["cat", "kitten"]}],
}


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
    crowd = {"id": 2, "bbox": [0, 0, 8, 6], "bbox_mode": 1, "category_id": 1, "iscrowd": 1, "area": 8}
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
    "box only": (lambda c: c["annotations"][0].pop("segmentation"), "annotation 1 has no segmentation"),
    "bad polygon": (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "annotation 1: a polygon is"),
    "other size": (lambda c: c["images"][0].update(height=7), r"annotation 2: the RLE's size is \[6, 8\]"),
    "no box": (lambda c: c["annotations"][0].pop("bbox"), "annotation 1: 'bbox' is missing"),
    "half a box": (lambda c: c["annotations"][0].update(bbox=[1, 2]), r"bbox is \[1, 2\], it must be"),
    "area is no number": (lambda c: c["annotations"][0].update(area="big"), "'area' is of the wrong type"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_json_is_one_clear_line(tmp_path: Path, content: dict, damage, message: str) -> None:
    """Error: every contradiction names the file and the entry, in one line."""
    damage(content)
    with pytest.raises(UserError, match=message) as error:
        _spec(tmp_path, content).load()
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
