"""The validator of amodal files: every fault by its kind and its id, and sums derived by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detectron2_sam.commands.cli import run_tool
from detectron2_sam.commands.validate_amodal import main
from sam_common.masks.rle import encode_mask
from tests.support import amodal_trees as trees

Validate = Callable[..., tuple[int, str]]


@pytest.fixture
def validate(tmp_path: Path, capsys: pytest.CaptureFixture) -> Validate:
    """(content or path, further arguments) -> exit status and all that was said."""

    def run(content: Any, *arguments: str) -> tuple[int, str]:
        path = content if isinstance(content, Path) else trees.write_json(tmp_path / "a.json", content)
        status = run_tool(lambda: main([str(path), *arguments]))
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


@pytest.mark.parametrize("schema", ["kins", "kins_2020", "cocoa_cls", "own"])
def test_a_sound_file(schema: str, validate: Validate) -> None:
    """Derived by hand: the car's right half is hidden, 6 of 12 pixels, 6 of 24 in all; a crop of twice its visible box,
    columns 0 to 4, loses one column of 3 pixels, 3 of 24, half of what is hidden."""
    status, said = validate(trees.content(schema))
    assert status == 0, said
    assert "1 images, 2 objects\n" in said and "no fault found" in said
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.startswith(("car", "van", "all"))}
    assert rows == {"car": ["1", "1", "50.00"], "van": ["1", "0", "0.00"], "all": ["2", "1", "25.00"]}
    assert "nothing 1, up to 25 % 0, up to 50 % 1, up to 75 % 0, more 0" in said
    assert "occluded: 1 with a hidden pixel, 1 by the signed sum" in said
    assert "12.50 % of the amodal area, 50.00 % of what is hidden; 1 objects lose some, 1 more than a tenth" in said


def test_original_cocoa(validate: Validate) -> None:
    """The same objects as regions; the ground is counted apart."""
    status, said = validate(trees.cocoa_content())
    assert status == 0 and "2 objects; besides, 1 × stuff, not an object" in said
    assert ["object", "2", "1", "25.00"] in [line.split() for line in said.splitlines()]


RIGHT_HALF = encode_mask(trees.rectangle(4, 0, 8, 6))
NOTHING = encode_mask(trees.rectangle(0, 0, 0, 0))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"inmodal_seg": NOTHING}, "1 × an empty visible mask: 11"),
        ({"segmentation": [[1, 1, 2, 2]]}, "1 × an empty amodal mask: 11"),
        ({"inmodal_seg": RIGHT_HALF}, "1 × visible pixels outside the amodal mask: 11 (21 of 24)"),
        ({"segmentation": [[1, 1, 50, 1, 50, 4, 1, 4]]}, "1 × an outline that leaves the image: 11"),
        ({"bbox": [1, 1, 0, 3]}, "1 × a box without area, or not of four numbers: 11 (bbox)"),
        ({"bbox": [1, 1, -4, 3]}, "1 × a box without area, or not of four numbers: 11 (bbox)"),
        ({"bbox": [math.nan, 1, 4, 3]}, "1 × a box without area, or not of four numbers: 11 (bbox)"),
        ({"bbox": None}, "1 × a box without area, or not of four numbers: 11 (bbox)"),
        ({"inmodal_bbox": [1, 1, 12, 3]}, "1 × a box that leaves the image: 11 (inmodal_bbox)"),
        ({"inmodal_bbox": [5, 1, 2, 3]}, "1 × a box that is not that of its mask: 11 (inmodal_bbox)"),
        ({"id": 12}, "1 × an entry that the reader refuses: annotation 12: two have this id"),
        ({"image_id": 6}, "annotation 11: images has no entry with the id 6"),
        ({"inmodal_seg": "x"}, "annotation 11, inmodal_seg: segmentation must be a list of polygons, or an RLE"),
    ],
)
def test_every_fault_is_named(change: dict[str, Any], fault: str, validate: Validate) -> None:
    """One thing wrong with one of two objects: status 1, its kind, its id; the walk goes on to the other."""
    content = trees.content("kins")
    content["annotations"][0] |= change
    status, said = validate(content)
    assert status == 1 and fault in said and "faults found" in said
    assert "\nall " in said and "Traceback" not in said


def test_twice(validate: Validate) -> None:
    """The same object with another id is named; many faults are cut short, unless all are asked for."""
    content = trees.content("kins")
    for place in range(30):
        content["annotations"].append({**copy.deepcopy(content["annotations"][0]), "id": 100 + place})
    status, said = validate(content)
    assert status == 1 and "30 × the masks of an object before it: 100; 101;" in said
    assert "… and 10 more: --all" in said and "; 129" not in said
    assert "; 129" in validate(content, "--all")[1]


def test_images(validate: Validate, tmp_path: Path) -> None:
    """With --images, files that are missing or of another size; a crowd is no fault."""
    content = trees.content("kins")
    content["images"].append({"id": 6, "file_name": "six.png", "height": 9, "width": 8})
    content["images"].append({"id": 7, "file_name": "seven.png", "height": 6, "width": 8})
    content["annotations"][0]["iscrowd"] = 1
    for name in ("five", "six"):
        trees.write_image(tmp_path / "images" / f"{name}.png")
    status, said = validate(content, "--images", str(tmp_path / "images"))
    assert status == 1 and "besides, 1 × a crowd instead of an object" in said
    assert "2 × an image that is missing or of another size" in said
    assert "six.png is 8×6, the file says 8×9" in said and "seven.png" in said
    assert validate(content)[0] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "'images' is missing"),
        ({**trees.content("kins"), "images": []}, "images is empty"),
        ({**trees.content("kins"), "annotations": 3}, "'annotations' is of the wrong type"),
        ({**trees.content("kins"), "categories": []}, "categories is empty"),
        ({**trees.cocoa_content(), "annotations": [{"regions": 3, "image_id": 5}]}, "'regions' is of the wrong type"),
        (trees.cocoa_content()["annotations"][0], "is the annotation of one image"),
    ],
)
def test_unreadable(content: Any, message: str, validate: Validate) -> None:
    """Error: a file in no such form is one line, status 2."""
    status, said = validate(content)
    assert status == 2 and any(part in said for part in message.split("|")) and said.count("\n") == 1


def test_missing_and_no_json(validate: Validate, tmp_path: Path) -> None:
    """Error: no file, or one that is no JSON, is one line, status 2. A file without objects is a fault."""
    assert validate(tmp_path / "nowhere.json")[0] == 2
    (tmp_path / "b.json").write_text("{")
    assert validate(tmp_path / "b.json")[0] == 2
    status, said = validate(trees.content("kins") | {"annotations": []})
    assert status == 1 and "no object that can be used" in said


def test_real_images(samples: Path, validate: Validate) -> None:
    """The five real COCOA images, a folder of files: 47 objects, no fault."""
    status, said = validate(samples / "cocoa", "--images", str(samples / "cocoa"))
    assert status == 0 and "5 images, 47 objects; besides, 1 × stuff" in said
