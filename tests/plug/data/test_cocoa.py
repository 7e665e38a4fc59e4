"""The reader of the original COCOA annotation: regions of images, in one file or one for each image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from plug.data.annotations import HIDDEN_WITHOUT_MASK, read_amodal
from plug.data.cocoa import OBJECT, STUFF, cocoa_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.remarks import log_once
from sam_common.errors import UserError
from sam_common.masks.rle import segmentation_extent
from tests.support import amodal_trees as trees


@pytest.fixture(autouse=True)
def _warn_again() -> None:
    log_once.cache_clear()


def spec_of(folder: Path, content: Any, **options: Any) -> DatasetSpec:
    trees.write_image(folder / "images" / "five.png")
    return cocoa_spec(
        "mine", json_file=trees.write_json(folder / "a.json", content), images=folder / "images", **options
    )


def test_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Derived by hand: one class; the region of stuff is left out and named; ids count all regions."""
    spec = spec_of(tmp_path, trees.cocoa_content())
    assert spec.load_vocabulary() == OBJECT and spec.truth == "amodal"
    (record,) = spec.load()
    whole, seen = read_amodal(record)
    assert torch.equal(whole, trees.AMODAL[[1, 0]]) and torch.equal(seen, trees.VISIBLE[[1, 0]])
    assert [(entry["id"], entry["category_id"]) for entry in record["annotations"]] == [(1, 0), (3, 0)]
    assert caplog.messages == [f"{tmp_path}/a.json: 1 × {STUFF}, left out: image 5 region 2"]


def test_what_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Derived by hand: without visible_mask it is the whole less invisible_mask; without both, all of it, unless
    occlude_rate says that something is hidden."""
    content = trees.cocoa_content()
    car = content["annotations"][0]["regions"][2]
    car.pop("visible_mask")
    assert torch.equal(read_amodal(spec_of(tmp_path, content).load()[0])[1], trees.VISIBLE[[1, 0]])
    car.pop("invisible_mask")
    assert [entry["id"] for entry in spec_of(tmp_path, content).load()[0]["annotations"]] == [1]
    assert f"1 × {HIDDEN_WITHOUT_MASK}, left out: image 5 region 3" in caplog.text
    car["occlude_rate"] = 0
    whole, seen = read_amodal(spec_of(tmp_path, content).load()[0])
    assert torch.equal(seen[1], whole[1])


def test_flags_and_ids_as_other_tools_write_them(tmp_path: Path) -> None:
    """Equality: an id as text and isStuff as text or bool read as the numbers do: "0" is no stuff."""
    sound = spec_of(tmp_path, trees.cocoa_content()).load()
    content = trees.cocoa_content()
    content["annotations"][0]["image_id"] = "5"
    for region, flag in zip(content["annotations"][0]["regions"], ("0", "true", False), strict=True):
        region["isStuff"] = flag
    assert spec_of(tmp_path, content).load() == sound


def test_a_second_annotation_of_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Edge case: two people annotated one image; its objects are there once."""
    content = trees.cocoa_content()
    content["annotations"] *= 2
    assert len(spec_of(tmp_path, content).load()[0]["annotations"]) == 2
    assert "3 × the second annotation of its image" in caplog.text


def test_a_file_for_each_image(tmp_path: Path) -> None:
    """Equality: a folder of entries, each beside its image, reads as the one file does."""
    (single,) = spec_of(tmp_path, trees.cocoa_content()).load()
    folder = tmp_path / "apart"
    trees.write_json(folder / "five.json", trees.cocoa_content()["annotations"][0])
    trees.write_image(folder / "five.png")
    (record,) = cocoa_spec("mine", json_file=folder, images=folder).load()
    assert record | {"file_name": ""} == single | {"file_name": ""}
    assert record["file_name"] == str(folder / "five.png")


def change(**values: Any) -> dict[str, Any]:
    content = trees.cocoa_content()
    content["annotations"][0]["regions"][2] |= values
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (change(segmentation="none"), "image 5 region 3, segmentation: segmentation must be a list"),
        (change(segmentation=[1, 2, 3]), "image 5 region 3, segmentation: a polygon is a list"),
        (change(visible_mask={"size": [1, 1], "counts": [1]}), r"region 3, visible_mask: the RLE's size is \[1, 1\]"),
        ({**trees.cocoa_content(), "images": []}, "images is empty"),
        ({**trees.cocoa_content(), "annotations": [{"image_id": 9, "regions": []}]}, "no entry with the id 9"),
        ({**trees.cocoa_content(), "annotations": [{"image_id": 5, "regions": [1]}]}, "region 1 is no mapping"),
        (trees.content("kins"), "image 5: 'regions' is missing"),
        (trees.cocoa_content()["annotations"][0], "is the annotation of one image; name its folder instead"),
    ],
)
def test_refused(content: Any, message: str, tmp_path: Path) -> None:
    """Error: one line that names the file and the region."""
    with pytest.raises(UserError, match=message) as error:
        spec_of(tmp_path, content).load()
    assert "\n" not in str(error.value) and str(tmp_path / "a.json") in str(error.value)


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    """Error: no JSON in the folder; a JSON without its image; a JSON that is no annotation."""
    with pytest.raises(UserError, match="holds no JSON files"):
        cocoa_spec("mine", json_file=tmp_path, images=tmp_path).load()
    trees.write_json(tmp_path / "7.json", trees.cocoa_content()["annotations"][0])
    with pytest.raises(UserError, match=r"no image .*7\.jpg"):
        cocoa_spec("mine", json_file=tmp_path, images=tmp_path).load()
    trees.write_json(tmp_path / "7.json", {"anything": 1})
    with pytest.raises(UserError, match=r"7\.json: 'regions' is missing"):
        cocoa_spec("mine", json_file=tmp_path, images=tmp_path).load()


def test_real_images(samples: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On the five real images: 47 objects and one region of stuff; what is hidden is what the annotation calls
    invisible, at its rate."""
    spec = cocoa_spec("real", json_file=samples / "cocoa", images=samples / "cocoa")
    records = spec.load()
    assert [record["image_id"] for record in records] == [188819, 343254, 6608, 328805, 200752]
    assert [len(record["annotations"]) for record in records] == [2, 11, 18, 10, 6]
    assert caplog.messages == [f"{samples}/cocoa: 1 × {STUFF}, left out: image 6608 region 4"]
    for record in records:
        regions = json_of(record)["regions"]
        whole, seen = read_amodal(record)
        assert not (seen & ~whole).any()
        objects = [region for region in regions if not region["isStuff"]]
        for mask, visible, region in zip(whole, seen, objects, strict=True):
            hidden = (mask & ~visible).sum()
            if "invisible_mask" in region:
                _, area = segmentation_extent(region["invisible_mask"], *mask.shape)
                assert hidden == area
            assert float(hidden / mask.sum()) == pytest.approx(region["occlude_rate"], abs=0.01)


def json_of(record: dict[str, Any]) -> dict[str, Any]:
    return json.loads(Path(record["file_name"]).with_suffix(".json").read_text())
