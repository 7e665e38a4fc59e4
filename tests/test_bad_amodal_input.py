"""What users give that is strange or wrong about boxes and whole objects, through the real tools and a tiny PLUG.

Strange pictures are predicted all the same; what is wrong ends in one line that names it, never in a traceback. Faults
of single entries of box files are in tests/sam_common/boxes/test_box_files.py.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2_sam.commands import predict
from plug.predictor import Predictor
from sam_common.boxes import detectors
from sam_common.boxes.boxes import Boxes
from sam_common.boxes.detectors import build_box_source, register_detector
from sam_common.errors import UserError

CONFIG = "configs/plug_T.yaml"
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.SAM.WEIGHTS": "random",
    "MODEL.PLUG.CROP_SIZE": "64",
    "MODEL.PLUG.LORA_RANK": "4",
    "MODEL.PLUG.REFINE_WIDTH": "8",
}
OPTIONS = [word for pair in TINY.items() for word in pair]
NAN = float("nan")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_config(CONFIG, weights="random", options=OPTIONS)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), (90, 120, 150)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def _run(picture: Path, *more: str) -> int:
    arguments = ["--config-file", CONFIG, "--weights", "random", "--input", str(picture)]
    return predict.main([*arguments, *more, "--output", str(picture.parent / "out"), *OPTIONS])


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


STRANGE: dict[str, tuple[Image.Image, str, dict[str, Any], tuple[int, int]]] = {
    "1x1": (Image.new("RGB", (1, 1)), "png", {}, (1, 1)),
    "greyscale": (Image.new("L", (40, 30), 99), "png", {}, (30, 40)),
    "16-bit": (Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "png", {}, (30, 40)),
    "RGBA": (Image.new("RGBA", (40, 30), (9, 99, 199, 7)), "png", {}, (30, 40)),
    "EXIF-rotated": (Image.new("RGB", (40, 30)), "jpg", {"exif": _exif(6)}, (40, 30)),
    "absurdly long": (Image.new("1", (1, 20_000)), "png", {}, (20_000, 1)),
}


@pytest.mark.parametrize(("image", "suffix", "options", "size"), STRANGE.values(), ids=STRANGE)
def test_strange_pictures_are_completed(
    predictor: Predictor,
    tmp_path: Path,
    image: Image.Image,
    suffix: str,
    options: dict[str, Any],
    size: tuple[int, int],
) -> None:
    """Invariant: boxes are of the upright picture, and so are masks, for a box of all and one of a corner."""
    image.save(tmp_path / f"a.{suffix}", **options)
    boxes = [[0, 0, size[1], size[0]], [size[1] - 0.5, size[0] - 0.5, 10**6, 10**6]]
    found = predictor(tmp_path / f"a.{suffix}", boxes).instances
    assert found.image_size == size
    assert found.amodal_mask(0).shape == found.visible_mask(1).shape == size


def test_a_box_of_the_picture_as_it_lies_on_disk(tmp_path: Path) -> None:
    """Error: a box right of column 30 of a picture that stands upright 30 wide: outside, not silently turned."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=_exif(6))
    assert _run(tmp_path / "a.jpg", "--box", "0,30,10,40") == 0
    assert _run(tmp_path / "a.jpg", "--box", "31,0,40,10", "--overwrite") == 1


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([NAN, 0, 1, 1], "has a coordinate that is no number"),
        ([9, 0, 1, 1], "has x1 < x0"),
        ([5, 5, 5, 9], "has no area"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_boxes_that_are_none(picture: Path, box: list[float], message: str, suffix: str) -> None:
    """Error: file, entry and fault, before the model is built; nothing is written."""
    file = picture.with_name(f"boxes.{suffix}")
    file.write_text(json.dumps({"a.png": [box]}) if suffix == "json" else f"a.png,{','.join(map(str, box))}\n")
    with pytest.raises(UserError, match=rf"boxes\.{suffix}, .*{message}") as error:
        _run(picture, "--boxes", str(file))
    assert "\n" not in str(error.value) and not (picture.parent / "out").exists()


def test_a_box_outside_the_image(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Error: picture, file, box and the picture's size; exit status 1."""
    picture.with_name("boxes.json").write_text('{"a.png": [[0, 0, 5, 5], [40, 30, 50, 50]]}')
    assert _run(picture, "--boxes", str(picture.with_name("boxes.json"))) == 1
    line = capsys.readouterr().err.strip()
    assert "\n" not in line and "a.png: " in line
    assert "boxes.json: box 1, 40,30,50,50, lies outside the image of 40 × 30 pixels" in line


def test_empty_box_file_and_boxes_of_other_images(picture: Path) -> None:
    """Error: a file of no bytes, one without boxes, one for images that are not given."""
    file = picture.with_name("boxes.json")
    contents = ("", "is empty"), ("[]", "holds no boxes"), ('{"b.png": [[0, 0, 1, 1]]}', "none of these is among")
    for content, message in contents:
        file.write_text(content)
        with pytest.raises(UserError, match=rf"boxes\.json.*{message}"):
            _run(picture, "--boxes", str(file))


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["boxes.pkl", "boxes.json", "boxes.csv"])
def test_a_pickled_box_file(picture: Path, name: str) -> None:
    """Error: refused whatever its name, with the converter's; what it wanted to run did not run."""
    file = picture.with_name(name)
    file.write_bytes(pickle.dumps(_Evil(picture.parent / "made")))
    readers = [lambda: _run(picture, "--boxes", str(file))]
    if name.endswith(".json"):
        readers.append(lambda: build_box_source(str(file)))
    for read in readers:
        with pytest.raises(UserError, match=r"is a pickled file.*detectron2-sam convert-boxes") as error:
            read()
        assert "\n" not in str(error.value)
    assert not (picture.parent / "made").exists()


@pytest.mark.parametrize(
    ("boxes", "kept"),
    [([], 0), ([[NAN] * 4], 0), ([[90, 90, 99, 99], [0, 0, 0, 9]], 0), ([[NAN, 0, 9, 9], [-5, 3, 8, 99]], 1)],
)
def test_a_detector_that_finds_nothing_or_nonsense(
    picture: Path, monkeypatch: pytest.MonkeyPatch, boxes: list[list[float]], kept: int
) -> None:
    """Invariant: the picture is drawn and the results written, of the boxes that can be used."""
    monkeypatch.setattr(detectors, "_MAKERS", dict(detectors._MAKERS))
    found = Boxes(torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes)))
    register_detector("stub", lambda weights, device: lambda image: found)
    assert _run(picture, "--detector", "stub") == 0
    out = picture.parent / "out"
    assert len(json.loads((out / "amodal_results.json").read_text())) == kept
    assert len(json.loads((out / "images.json").read_text())["images"]) == 1 and (out / "a.png").is_file()


def test_a_real_image_with_boxes(samples: Path, tmp_path: Path) -> None:
    """Real input: a COCOA picture through the tool, two of its objects; as many results, of the picture's size."""
    more = ("--box", "80,50,325,450", "--box", "130,5,630,380", "--output", str(tmp_path))
    arguments = ["--config-file", CONFIG, "--weights", "random", "--input", str(samples / "cocoa" / "1.jpg")]
    assert predict.main([*arguments, *more, *OPTIONS]) == 0
    results = json.loads((tmp_path / "amodal_results.json").read_text())
    assert [entry["segmentation"]["size"] for entry in results] == [[480, 640]] * 2
