"""Boxes from files: three forms that say the same, and one line for every fault."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam_common.boxes.box_files import read_box_file, read_coco_results
from sam_common.errors import UserError


def _write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"x.jpg": [[1, 2, 4, 6, 0.5], [0, 0, 1.5, 1]]}),
        ("a.csv", "file,x0,y0,x1,y1,score\nx.jpg,1,2,4,6,0.5\n\nx.jpg, 0, 0, 1.5, 1\n"),
        ("a.CSV", "\ufeffx.jpg,1,2,4,6,.5\r\nx.jpg,0,0,1.5,1"),
        (
            "b.json",
            [{"file_name": "x.jpg", "bbox": [1, 2, 3, 4], "score": 0.5}, {"image_id": "x.jpg", "bbox": [0, 0, 1.5, 1]}],
        ),
    ],
)
def test_three_forms_say_the_same(tmp_path: Path, name: str, content: Any) -> None:
    """Derived by hand: the same two boxes XYXY, with the score given and the default of 1."""
    (found,) = [read_box_file(_write(tmp_path / name, content))["x.jpg"]]
    assert found.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 1.5, 1]] and found.scores.tolist() == [0.5, 1.0]


def test_results_by_image_id(tmp_path: Path) -> None:
    """Derived by hand: ids stay what they were, classes become texts; as a box file the id is a text as well."""
    path = _write(tmp_path / "a.json", [{"image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 1]}])
    assert read_coco_results(path)[7].categories == ["18"]
    assert list(read_box_file(path)) == ["7"]


def test_results_of_whole_objects_are_boxes_of_what_is_seen(tmp_path: Path) -> None:
    """Derived by hand: the box that was asked about is read, not that of the answer, which may even be empty."""
    entry = {"image_id": 7, "prompt_bbox": [1, 2, 3, 4]}
    path = _write(tmp_path / "a.json", [entry | {"bbox": [0, 0, 9, 9]}, entry | {"bbox": [0, 0, 0, 0]}])
    assert read_coco_results(path)[7].boxes.tolist() == [[1, 2, 4, 6]] * 2


NAN_BOX = '[{"image_id": 1, "bbox": [NaN, 0, 1, 1]}]'
FAULTS: dict[str, tuple[str, Any, str]] = {
    "NaN": ("a.json", NAN_BOX, r"a\.json, entry 0: the bbox \[nan, 0, 1, 1\] has a coordinate that is no number"),
    "negative width": ("a.json", [{"image_id": 1, "bbox": [5, 0, -1, 1]}], "entry 0: .* has x1 < x0"),
    "no area": ("a.json", [{"image_id": 1, "bbox": [5, 0, 0, 1]}], "entry 0: .* has no area"),
    "no area in 32 bits": ("a.json", [{"image_id": 1, "bbox": [5000, 0, 1e-9, 1]}], "has no area"),
    "a huge number": ("a.json", '[{"image_id": 1, "bbox": [1' + "0" * 400 + ", 0, 1, 1]}]", "is no number"),
    "three numbers": ("a.json", [{"image_id": 1, "bbox": [5, 0, 1]}], r"'bbox' must be \[x, y, width, height\]"),
    "no image": ("a.json", [{"bbox": [5, 0, 1, 1]}], "entry 0: 'image_id' is missing"),
    "no entry": ("a.json", [5], "entry 0: 'image_id' is missing"),
    "half of the classes": (
        "a.json",
        [{"image_id": 1, "bbox": [0, 0, 1, 1]}, {"image_id": 1, "bbox": [0, 0, 1, 1], "category_id": 2}],
        "image 1: 1 of its 2 entries have category_id",
    ),
    "NaN score": ("a.json", '[{"image_id": 1, "bbox": [0, 0, 1, 1], "score": NaN}]', "the score nan is no number"),
    "empty mask": ("a.json", [{"image_id": 1, "segmentation": {"size": [2, 2], "counts": [4]}}], "has no area"),
    "damaged mask": ("a.json", [{"image_id": 1, "segmentation": {"size": [2, 2], "counts": [9]}}], "counts of"),
    "reversed": ("a.json", {"x.jpg": [[0, 0, 1, 1], [5, 0, 1, 1]]}, "'x.jpg', box 1: .* has x1 < x0"),
    "text": ("a.json", {"x.jpg": [["a", 0, 1, 1]]}, "'a' is no number"),
    "flag": ("a.json", {"x.jpg": [[True, 0, 1, 1]]}, "'True' is no number"),
    "annotation file": ("a.json", {"images": [{"id": 1}], "annotations": []}, "'images' must be a list of boxes"),
    "no boxes": ("a.json", {"x.jpg": []}, r"a\.json holds no boxes"),
    "no entries": ("a.json", [], r"a\.json holds no boxes"),
    "empty": ("a.json", "", r"a\.json is empty"),
    "blank": ("a.csv", " \n", r"a\.csv is empty"),
    "header alone": ("a.csv", "file,x0,y0,x1,y1\n", "holds no boxes"),
    "no JSON": ("a.json", "{", "cannot be read as JSON"),
    "number": ("a.json", "7", "is no COCO results JSON"),
    "short line": ("a.csv", "x.jpg,1,2,3\n", r"a\.csv, line 1: give file,x0,y0,x1,y1"),
    "word in CSV": ("a.csv", "x.jpg,1,2,3,4\nx.jpg,a,2,3,4\n", r"line 2: 'a' is no number"),
    "NaN score in CSV": ("a.csv", "x.jpg,1,2,3,4,nan", "line 1: the score 'nan' is no number"),
    "reversed in CSV": ("a.csv", "x.jpg,5,2,3,4", r"line 1: the box .* has x1 < x0"),
}


@pytest.mark.parametrize(("name", "content", "message"), FAULTS.values(), ids=FAULTS)
def test_faults(tmp_path: Path, name: str, content: Any, message: str) -> None:
    """Error: one line that names the file and the entry."""
    with pytest.raises(UserError, match=message) as error:
        read_box_file(_write(tmp_path / name, content))
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Error: a missing file, and a folder."""
    with pytest.raises(UserError, match=r"the box file .*no\.json cannot be read: No such file"):
        read_box_file(tmp_path / "no.json")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_coco_results(tmp_path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["a.pkl", "a.json", "a.csv"])
@pytest.mark.parametrize("content", [{"x.jpg": np.ones((2, 4))}, [1], (1, 2)])
def test_a_pickle_is_refused_whatever_its_name(tmp_path: Path, protocol: int, name: str, content: Any) -> None:
    """Error: told by its bytes in every protocol; the line names the converter, and nothing was unpickled."""
    (tmp_path / name).write_bytes(pickle.dumps(content, protocol))
    for read in (read_box_file, read_coco_results):
        with pytest.raises(UserError, match=r"is a pickled file.*detectron2-sam convert-boxes") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_csv_that_ends_with_a_dot_is_no_pickle(tmp_path: Path) -> None:
    """Edge case: "cat.jpg,1,2,3,4." begins and ends as some pickles do."""
    assert read_box_file(_write(tmp_path / "a.csv", "cat.jpg,1,2,3,4."))["cat.jpg"].boxes.tolist() == [[1, 2, 3, 4]]
