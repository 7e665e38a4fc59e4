"""The reader of amodal COCO files: every schema gives the same masks; what cannot be used is named."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from plug.data import coco_amodal as schemas
from plug.data.annotations import (
    CROWD,
    EMPTY_AMODAL,
    EMPTY_VISIBLE,
    HIDDEN_KEYS,
    HIDDEN_WITHOUT_MASK,
    OTHER_RATE,
    RATE_KEYS,
    boxes_of,
    read_amodal,
)
from plug.data.check import Notes, find_objects
from plug.data.coco_amodal import coco_amodal_spec
from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.remarks import log_once
from sam_common.errors import UserError
from sam_common.masks.rle import encode_mask
from sam_common.structures import Category
from tests.support import amodal_trees as trees

SCHEMAS = ("kins", "kins_2020", "cocoa_cls", "own")
EMPTY = {"size": [trees.HEIGHT, trees.WIDTH], "counts": [trees.HEIGHT * trees.WIDTH]}


@pytest.fixture(autouse=True)
def _warn_again() -> None:
    """Each test sees its own warnings, though files of one name were warned of before."""
    log_once.cache_clear()


def spec_of(folder: Path, content: dict[str, Any]) -> DatasetSpec:
    trees.write_image(folder / "five.png")
    return coco_amodal_spec("mine", json_file=trees.write_json(folder / "a.json", content), images=folder)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema(schema: str, tmp_path: Path) -> None:
    """Derived by hand: one record, whichever keys the file has; boxes are tight, the area is the whole object's."""
    spec = spec_of(tmp_path, trees.content(schema))
    assert spec.truth == "amodal" and set(spec.files) == {"json", "images"}
    assert spec.load_vocabulary() == (Category("car", ("car",), True, 4), Category("van", ("van",), True, 7))
    (record,) = spec.load()
    assert json.loads(json.dumps(record)) == record
    assert [record[key] for key in ("image_id", "height", "width")] == [5, 6, 8]
    for index, entry in enumerate(record["annotations"]):
        assert [entry[key] for key in ("id", "category_id", "iscrowd", "bbox_mode")] == [11 + index, index, 0, 1]
        assert [entry[key] for key in ("bbox", "visible_bbox", "area")] == [
            trees.AMODAL_BOXES[index],
            trees.VISIBLE_BOXES[index],
            12,
        ]
    whole, seen = read_amodal(record)
    assert torch.equal(whole, trees.AMODAL) and torch.equal(seen, trees.VISIBLE)
    assert boxes_of(record["annotations"], "visible_bbox").tolist() == [[1, 1, 3, 4], [3, 1, 6, 5]]


@pytest.mark.parametrize("kins", ["kins", "kins_2020"])
def test_official_trees(kins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builtin names read the published trees, KINS whichever file lies there."""
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    catalog.register_builtin(trees.official_tree(tmp_path, kins))
    for name in ("kins_train", "kins_val", "cocoa_cls_train", "cocoa_cls_val", "cocoa_train", "cocoa_val"):
        (record,) = catalog.get(name).load()
        whole, seen = read_amodal(record)
        order = [1, 0] if name in ("cocoa_train", "cocoa_val") else [0, 1]
        assert torch.equal(whole, trees.AMODAL[order]) and torch.equal(seen, trees.VISIBLE[order]), name
    assert "testing/image_2" in catalog.get("kins_val").files["images"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inmodal_seg": EMPTY}, EMPTY_VISIBLE),
        ({"segmentation": [[1, 1, 5, 4]]}, EMPTY_AMODAL),
        ({"segmentation": []}, EMPTY_AMODAL),
        ({"segmentation": None}, EMPTY_AMODAL),
        ({"segmentation": {"size": [6, 8], "counts": ""}}, EMPTY_AMODAL),
        ({"iscrowd": 1}, CROWD),
        ({"iscrowd": "true"}, CROWD),
    ],
)
def test_left_out(change: dict[str, Any], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Edge case: an empty visible mask, a polygon of two points, no polygon, a crowd: left out, counted, named; once
    for a file that is read twice. Where nothing is left, the same is the error."""
    content = trees.content("kins")
    content["annotations"][0] |= change
    spec = spec_of(tmp_path, content)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [entry["id"] for entry in spec.load()[0]["annotations"]] == [12]
    assert caplog.messages[0] == f"{tmp_path}/a.json: 1 × {reason}, left out: 11"
    assert len(caplog.messages) == 2 and "car" in caplog.messages[1]  # the class that has no object now
    content["annotations"][1] |= change
    with pytest.raises(UserError, match=f"2 × {reason}, left out: 11, 12"):
        spec_of(tmp_path, content).load()


def test_hidden_somewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Edge case of COCOA-cls: hidden by half, but no mask says where; else a missing mask means "seen whole"."""
    content = trees.content("cocoa_cls")
    content["annotations"][0].pop("visible_mask")
    assert [entry["id"] for entry in spec_of(tmp_path, content).load()[0]["annotations"]] == [12]
    assert f"1 × {HIDDEN_WITHOUT_MASK}, left out: 11" in caplog.text


@pytest.mark.parametrize("key", HIDDEN_KEYS)
@pytest.mark.parametrize("schema", ["cocoa_cls", "own"])
def test_the_hidden_part(schema: str, key: str, tmp_path: Path) -> None:
    """Derived by hand: what is seen is the whole less its hidden part, whichever tool's key names that; a null visible
    mask is none; and so for the walk that looks for faults."""
    content = trees.content(schema)
    sound = spec_of(tmp_path, content).load()
    for index, entry in enumerate(content["annotations"]):
        entry |= {schemas.SCHEMAS[-1 if schema == "cocoa_cls" else -2].visible: None}
        entry[key] = encode_mask(trees.AMODAL[index] & ~trees.VISIBLE[index])
    (record,) = spec_of(tmp_path, content).load()
    assert [mask.tolist() for mask in read_amodal(record)] == [mask.tolist() for mask in read_amodal(sound[0])]
    notes = Notes()
    found = list(find_objects(content, "a.json", {5: record}, notes))
    assert [(f.amodal.area, f.visible.area, f.common) for f in found] == [(12, 6, 6), (12, 12, 12)] and not notes.faults


@pytest.mark.parametrize("key", RATE_KEYS)
def test_a_rate_that_contradicts_the_masks(key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The masks count, and a warning names the object; 0.5 is what is hidden of the first, 0 of the second."""
    content = trees.content("cocoa_cls")
    for entry in content["annotations"]:
        entry["occlude_rate"] = None
    content["annotations"][0][key] = "0.5"
    sound = spec_of(tmp_path, content).load()
    assert not caplog.text
    content["annotations"][0][key] = 0
    assert spec_of(tmp_path, content).load() == sound
    assert f"1 × {OTHER_RATE}, ignored: 11" in caplog.text
    notes = Notes()
    assert len(list(find_objects(content, "a.json", {5: sound[0]}, notes))) == 2
    assert notes.faults == {OTHER_RATE: ["11"]}
    content["annotations"][0][key] = "half"
    with pytest.raises(UserError, match="annotation 11.*half"):
        spec_of(tmp_path, content | {"annotations": [content["annotations"][0] | {"visible_mask": None}]}).load()


def test_visible_outside_the_amodal_mask(tmp_path: Path) -> None:
    """Edge case: kept as annotated, since the sign of amodal - visible decides what one of the metrics counts."""
    content = trees.content("kins")
    content["annotations"][0]["inmodal_seg"] = encode_mask(trees.rectangle(0, 0, 3, 6))
    (record,) = spec_of(tmp_path, content).load()
    whole, seen = read_amodal(record)
    assert torch.equal(seen[0], trees.rectangle(0, 0, 3, 6)) and (seen[0] & ~whole[0]).any()
    assert record["annotations"][0]["visible_bbox"] == [0, 0, 3, 6]


@pytest.mark.parametrize("box", [[90, 90, 5, 5], [1, 1, 0, 0], [1, 1, -3, 2], [math.nan] * 4, "none", None])
def test_boxes_of_the_file(box: Any, tmp_path: Path) -> None:
    """Invariant: the boxes of the file change nothing, be they outside the image, empty, inverted, NaN or no boxes."""
    content = trees.content("kins")
    sound = spec_of(tmp_path, content).load()
    content["annotations"][0] |= {"bbox": box, "inmodal_bbox": box}
    assert spec_of(tmp_path, content).load() == sound


def test_images_without_objects_stay(tmp_path: Path) -> None:
    """Edge case: they are tested on, with no box; but not where no image has an object."""
    content = trees.content("kins")
    content["images"].append(content["images"][0] | {"id": 6})
    assert [len(record["annotations"]) for record in spec_of(tmp_path, content).load()] == [2, 0]
    with pytest.raises(UserError, match="nothing is left to train or test on"):
        spec_of(tmp_path, content | {"annotations": []}).load()


def test_classes_without_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """KINS has such a class: a warning with its name, no error."""
    content = trees.content("kins")
    content["categories"].append({"id": 6, "name": "person-sitting"})
    assert len(spec_of(tmp_path, content).load_vocabulary()) == 3 and spec_of(tmp_path, content).load()
    assert "1 × a class without an annotation: person-sitting" in caplog.text


def without(key: str, place: int = 0) -> dict[str, Any]:
    content = trees.content("kins")
    content["annotations"][place].pop(key)
    return content


def with_change(**change: Any) -> dict[str, Any]:
    content = trees.content("kins")
    content["annotations"][0] |= change
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("inmodal_seg"), r"annotation 11 has no inmodal_seg, the mask of what is seen of it; where nothing"),
        (without("category_id"), r"annotation 11: 'category_id' is missing"),
        (with_change(category_id=5), r"annotation 11: its category_id 5 is not in categories"),
        (with_change(image_id=6), r"annotation 11: images has no entry with the id 6"),
        (with_change(id=12), r"annotation 12: two have this id"),
        (with_change(inmodal_seg={"size": [8, 6], "counts": [48]}), r"11, inmodal_seg: the RLE's size is \[8, 6\]"),
        (with_change(inmodal_seg="none"), r"11, inmodal_seg: segmentation must be a list of polygons, or an RLE"),
        (with_change(segmentation=[[math.nan] * 6]), r"11, segmentation: a polygon has the coordinate nan"),
        ({**trees.content("kins"), "images": []}, r"images is empty"),
        ([1, 2], r"'categories' is missing"),
    ],
)
def test_refused(content: Any, message: str, tmp_path: Path) -> None:
    """Error: what contradicts the format is one line with the file, the annotation and the key."""
    with pytest.raises(UserError, match=message) as error:
        spec_of(tmp_path, content).load()
    assert "\n" not in str(error.value) and str(tmp_path / "a.json") in str(error.value)


def test_no_visible_mask_anywhere(tmp_path: Path) -> None:
    """Error: an ordinary instance file is no amodal one, where visible would be amodal for every object."""
    content = trees.content("own")
    for entry in content["annotations"]:
        entry.pop("visible_segmentation")
    with pytest.raises(UserError, match="no annotation has a mask of .* by any of the keys i_segm, inmodal_seg, "):
        spec_of(tmp_path, content).load()


def test_missing_files(tmp_path: Path) -> None:
    """Error: the JSON or an image that is not there, by its path."""
    with pytest.raises(UserError, match=r"no annotation file .*nowhere\.json"):
        coco_amodal_spec("mine", json_file=tmp_path / "nowhere.json", images=tmp_path).load()
    spec = spec_of(tmp_path, trees.content("kins"))
    (tmp_path / "five.png").unlink()
    with pytest.raises(UserError, match=r"no file of images .*five\.png"):
        spec.load()
