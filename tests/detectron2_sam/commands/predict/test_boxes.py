"""Prediction with a model that completes objects, around one that says the left half of a box is visible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as codec
from torch import nn

from detectron2_sam.commands import predict
from detectron2_sam.commands.predict.video import VideoReader
from plug.predictor import Predictor
from plug.structures import AmodalInstances
from sam_common.boxes import detectors
from sam_common.boxes.boxes import Boxes
from sam_common.errors import UserError
from tests.support.files import files_of


class LeftHalves(nn.Module):
    """The whole object is its box, the left half of it is visible; as sure as 0.5."""

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (entry,) = batch
        windows = [tuple(int(value) for value in box) for box in entry["boxes"].tolist()]
        whole = [torch.ones(y1 - y0, x1 - x0, dtype=torch.bool) for x0, y0, x1, y1 in windows]
        visible = [mask & (torch.arange(mask.shape[1]) < mask.shape[1] // 2) for mask in whole]
        size = (entry["image"].shape[1], entry["image"].shape[2])
        scores = torch.full((len(whole),), 0.5)
        return [{"amodal": AmodalInstances(size, entry["boxes"], scores, windows, whole, visible)}]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "from_config", lambda *args, **kwargs: Predictor(LeftHalves()))
    monkeypatch.setattr(detectors, "_MAKERS", dict(detectors._MAKERS))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two pictures, 40 × 30."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b_000007.jpg"):
        Image.new("RGB", (40, 30), (90, 120, 150)).save(folder / name)
    return folder


def _run(*inputs: Path, output: Path, more: tuple[str, ...] = ()) -> int:
    arguments = ["--config-file", "configs/plug_T.yaml", "--input", *map(str, inputs), "--output", str(output)]
    return predict.main([*arguments, *more])


def _results(output: Path) -> list[dict[str, Any]]:
    return json.loads((output / "amodal_results.json").read_text())


def test_boxes_of_the_command_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Derived by hand: two boxes become two results in their order, with the masks of the whole, visible and hidden
    part; pycocotools loads them; the picture is drawn, in the hidden half hatched."""
    from pycocotools.coco import COCO

    out = tmp_path / "out"
    assert _run(photos / "a.jpg", output=out, more=("--box", "0,0,20,10", "--box=-5,20,10,30")) == 0
    assert capsys.readouterr().out == f"2 objects → {out / 'a.png'}\n"
    with pytest.raises(UserError, match=r"would replace 3 files, .*a\.png the first"):
        _run(photos / "a.jpg", output=out, more=("--box", "0,0,20,10"))
    first, second = _results(out)
    areas = [int(codec.area(first[f"{part}segmentation"])) for part in ("", "visible_", "occluded_")]
    assert areas == [200, 100, 100] and first["score"] == 0.5 and first["category_id"] is None
    assert first["bbox"] == first["prompt_bbox"] == [0, 0, 20, 10]
    assert second["prompt_bbox"] == [0, 20, 10, 10] and second["file_name"] == "a.jpg"
    results = COCO(str(out / "images.json")).loadRes(str(out / "amodal_results.json"))
    assert results.annToMask(results.dataset["annotations"][0]).sum() == 200
    picture = np.asarray(Image.open(out / "a.png"))
    scale = picture.shape[1] // 40
    hidden = picture[3 * scale : 7 * scale, 13 * scale : 17 * scale].reshape(-1, 3)
    visible = picture[3 * scale : 7 * scale, 4 * scale : 7 * scale].reshape(-1, 3)
    assert len(np.unique(visible, axis=0)) == 1 < len(np.unique(hidden, axis=0))


def test_python_writes_and_draws_the_same(photos: Path, tmp_path: Path) -> None:
    """Equality, byte for byte, of the files that the command writes and a result saves; its drawing is the picture."""
    _run(photos / "a.jpg", output=tmp_path / "out", more=("--box", "0,0,20,10", "--box=-5,20,10,30"))
    result = Predictor.from_config("plug_T")(photos / "a.jpg", [[0, 0, 20, 10], [-5, 20, 10, 30]])
    assert result.save(tmp_path / "saved") == [tmp_path / "saved" / "a.png"]
    assert files_of(tmp_path / "saved") == files_of(tmp_path / "out")
    assert np.array_equal(np.asarray(result.draw()), np.asarray(Image.open(tmp_path / "out" / "a.png")))


def test_boxes_of_a_file(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Derived by hand: a name, and an image id that is the number in the other's name; weak boxes are left out; what is
    over on either side is named."""
    Image.new("RGB", (40, 30)).save(photos / "c.jpg")
    boxes = tmp_path / "boxes.json"
    entry = {"bbox": [0, 0, 4, 4], "score": 0.9, "category_id": 3}
    weak = {"image_id": 7, "bbox": [0, 0, 9, 9], "score": 0.2, "category_id": 3}
    boxes.write_text(
        json.dumps([entry | {"file_name": "in/a.jpg"}, entry | {"image_id": 7}, weak, entry | {"image_id": 8}])
    )
    assert _run(photos, output=tmp_path / "out", more=("--boxes", str(boxes))) == 0
    printed = capsys.readouterr()
    found = [(entry["file_name"], entry["category_id"], entry["score"]) for entry in _results(tmp_path / "out")]
    assert found == [("a.jpg", 3, pytest.approx(0.45)), ("b_000007.jpg", 3, pytest.approx(0.45))]
    assert "boxes.json has boxes for images that are not among the inputs: 8" in printed.err
    assert "boxes.json has no boxes for c.jpg" in printed.err and "[3/3] no boxes →" in printed.out


def test_results_of_one_run_are_the_boxes_of_the_next(photos: Path, tmp_path: Path) -> None:
    """Round trip: amodal_results.json serves as a box file; it has file names, so numbering does not matter."""
    _run(photos / "b_000007.jpg", output=tmp_path / "one", more=("--box", "0,0,20,10"))
    more = ("--boxes", str(tmp_path / "one" / "amodal_results.json"), "--confidence-threshold", "0")
    assert _run(photos, output=tmp_path / "two", more=more) == 0
    (found,) = _results(tmp_path / "two")
    assert found["file_name"] == "b_000007.jpg" and found["prompt_bbox"] == [0, 0, 20, 10]


def test_boxes_for_missing_images(photos: Path, tmp_path: Path) -> None:
    """Error: none of a file's images is among the inputs."""
    (tmp_path / "boxes.csv").write_text("x.jpg,0,0,1,1\n")
    with pytest.raises(UserError, match=r"boxes\.csv has boxes for x\.jpg: none of these is among the inputs"):
        _run(photos, output=tmp_path / "out", more=("--boxes", str(tmp_path / "boxes.csv")))


def test_a_name_that_fits_two_inputs(photos: Path, tmp_path: Path) -> None:
    """Error: "a.jpg" in two folders; with the folders named each gets its own."""
    (tmp_path / "in" / "deep").mkdir()
    (tmp_path / "in" / "deep" / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"a.jpg": [[0, 0, 1, 1]]}')
    with pytest.raises(UserError, match=r"'a\.jpg' fits both .*give more of their paths"):
        _run(photos, output=tmp_path / "out", more=("--recursive", "--boxes", str(boxes)))
    boxes.write_text('{"in/a.jpg": [[0, 0, 4, 4]], "deep/a.jpg": [[0, 0, 8, 8]]}')
    assert _run(photos, output=tmp_path / "out", more=("--recursive", "--boxes", str(boxes))) == 0
    assert {entry["file_name"]: entry["bbox"][2] for entry in _results(tmp_path / "out")} == {
        "a.jpg": 4,
        "deep/a.jpg": 8,
    }


def test_a_box_outside_costs_its_own_image_only(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Error: the picture, the file and the box are named; the other picture is done; exit status 1."""
    (tmp_path / "boxes.json").write_text('{"a.jpg": [[40, 0, 50, 5]], "b_000007.jpg": [[0, 0, 4, 4]]}')
    assert _run(photos, output=tmp_path / "out", more=("--boxes", str(tmp_path / "boxes.json"))) == 1
    assert (
        r"a.jpg: " in (printed := capsys.readouterr().err) and "boxes.json: box 0, 40,0,50,5, lies outside" in printed
    )
    assert [entry["file_name"] for entry in _results(tmp_path / "out")] == ["b_000007.jpg"]


def test_a_detector_names_what_it_finds(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Derived by hand: a detector's words become classes, numbered as they come; what cannot be used is dropped."""
    rows = [[0.0, 0, 8, 8], [float("nan"), 0, 1, 1], [2, 2, 10, 10], [90, 90, 99, 99]]
    found = Boxes(torch.tensor(rows), torch.full((4,), 0.9), ["dog", "dog", "cat", "cat"])
    detectors.register_detector("stub", lambda weights, device: lambda image: found)
    assert _run(photos, output=tmp_path / "out", more=("--detector", "stub")) == 0
    assert "[1/2] 1 dog, 1 cat →" in capsys.readouterr().out
    assert [entry["category_id"] for entry in _results(tmp_path / "out")] == [1, 2, 1, 2]
    categories = json.loads((tmp_path / "out" / "images.json").read_text())["categories"]
    assert [(c["id"], c["name"]) for c in categories] == [(1, "dog"), (2, "cat")]


def test_a_video_with_a_detector(tmp_path: Path) -> None:
    """Derived by hand: each of 3 frames has the whole image as its one object."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for index in range(3):
        writer.write(np.full((48, 64, 3), 80 * index, np.uint8))
    writer.release()
    assert _run(tmp_path / "clip.avi", output=tmp_path / "out", more=("--detector", "full_image")) == 0
    with VideoReader(tmp_path / "out" / "clip.mp4") as video:
        assert len(list(video)) == 3
    header, *lines = [json.loads(line) for line in (tmp_path / "out" / "clip.jsonl").read_text().splitlines()]
    assert header["task"] == "amodal"
    assert [int(codec.area(line["segments"][0]["occluded_segmentation"])) for line in lines] == [48 * 32] * 3
    with pytest.raises(UserError, match=r"clip\.avi is a video, whose boxes only a --detector can give"):
        _run(tmp_path / "clip.avi", output=tmp_path / "out", more=("--box", "0,0,1,1"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "one of --boxes, --box and --detector; this is none"),
        (("--box", "0,0,1,1", "--detector", "full_image"), "this is --box and --detector"),
        (("--box", "0,0,1,1"), "--box is for one picture, --input names 2"),
        (("--vocabulary", "dog"), "--vocabulary is for models that look for classes"),
        (("--task", "panoptic"), "--task is for models that look for classes"),
        (("--detector", "yolo"), "there is no detector 'yolo'"),
        (("--detector", "full_image", "--detector-weights", "a.pth"), "full_image has no weights"),
        (("--boxes", "no.json"), r"the box file no\.json cannot be read"),
    ],
)
def test_a_command_line_that_makes_no_sense(photos: Path, tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    """Error: one line, before anything is written."""
    with pytest.raises(UserError, match=message) as error:
        _run(photos, output=tmp_path / "out", more=more)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("1,2,3", "give four numbers"),
        ("1,2,a,4", "give four numbers"),
        ("nan,0,1,1", "no number"),
        ("0,0,0,9", "no area"),
        ("9,0,1,9", "x1 < x0"),
    ],
)
def test_a_box_that_is_none(photos: Path, tmp_path: Path, box: str, message: str) -> None:
    """Error: --box and what is wrong with it."""
    with pytest.raises(UserError, match=f"--box {box}: .*{message}"):
        _run(photos / "a.jpg", output=tmp_path / "out", more=("--box", box))


def test_boxes_for_a_model_of_words(photos: Path, tmp_path: Path) -> None:
    """Error: the other way round."""
    arguments = ["--config-file", "configs/possam_T.yaml", "--input", str(photos), "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"--box is for models that are given boxes; .*possam_T\.yaml is given words"):
        predict.main([*arguments, "--box", "0,0,1,1"])
