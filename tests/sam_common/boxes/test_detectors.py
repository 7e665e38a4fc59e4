"""Detectors by name, and what becomes of boxes that cannot be used."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from urllib.request import Request

import pytest
import torch.hub
from torch import Tensor

from detectron2_sam.methods import full_cfg
from plug.data.mapper import AmodalMapper
from plug.method import mapper_arguments
from sam_common.boxes import detectors
from sam_common.boxes.boxes import Boxes
from sam_common.boxes.detectors import TORCHVISION, ResultsFile, build_box_source, build_detector, register_detector
from sam_common.errors import UserError

IMAGE = torch.zeros(3, 6, 8, dtype=torch.uint8)
NAN = float("nan")


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers, it alone sees."""
    monkeypatch.setattr(detectors, "_MAKERS", dict(detectors._MAKERS))


def test_importing_loads_no_detector() -> None:
    """Invariant: neither torchvision nor OpenCV is imported before a detector is built that needs it."""
    code = "import sys, sam_common.boxes.detectors; sys.exit(bool({'torchvision', 'cv2'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_full_image() -> None:
    """Derived by hand: one box, from corner to corner."""
    assert build_detector("full_image")(IMAGE).boxes.tolist() == [[0, 0, 8, 6]]


def test_the_names_are_torchvisions() -> None:
    """Invariant: each is a detector of boxes that torchvision has, and its weights carry a hash in their name."""
    from torchvision import models

    from sam_common.boxes.torchvision_detector import official_file

    known = {name for name in models.list_models(module=models.detection) if "keypoint" not in name}
    assert set(TORCHVISION) <= known
    for name in TORCHVISION:
        official = official_file(name)
        assert len(official.sha256) >= 8 and official.sha256 in official.file_name


def test_an_untrained_torchvision_detector_gives_usable_boxes() -> None:
    """Invariant: with random weights and no threshold, in an image larger than it works at, all boxes lie inside."""
    image = torch.randint(0, 256, (3, 100, 1500), dtype=torch.uint8)
    found = build_detector("ssdlite320_mobilenet_v3_large", weights="random", score_threshold=0.0)(image)
    assert len(found) and len(found.scores) == len(found) == len(found.categories)
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all() and (
        found.boxes[:, 2:].amax(0) <= torch.tensor([1500, 100])
    ).all()
    assert found.boxes[:, 2].max() > 1333, "boxes are in pixels of the image, not of what the model was given"


def test_weights_of_another_model(tmp_path: Path) -> None:
    """Error: a state dict that does not fit is named with the model."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth does not hold the weights of ssdlite320") as error:
        build_detector("ssdlite320_mobilenet_v3_large", weights=str(tmp_path / "a.pth"))
    assert "\n" not in str(error.value)


def test_without_network_one_line_says_where_to_put_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: the address, the reason and the place of a file fetched by hand."""

    def urlopen(request: Request) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", urlopen)
    with pytest.raises(UserError, match=r"cannot download https.*ssdlite320.*no network.*put it at .*\.pth") as error:
        build_detector("ssdlite320_mobilenet_v3_large")
    assert "\n" not in str(error.value)


def test_people_detector_of_opencv() -> None:
    """Edge case: an image smaller than its window has no people, and a plain one has none either."""
    detector = build_detector("opencv_hog_people")
    assert len(detector(IMAGE)) == 0
    found = detector(torch.zeros(3, 200, 300, dtype=torch.uint8))
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,)


def test_unknown_detector_and_useless_weights() -> None:
    """Error: the known names are listed; weights are not silently left aside."""
    with pytest.raises(UserError, match=r"there is no detector 'yolo'; known: full_image, .*fasterrcnn"):
        build_detector("yolo")
    with pytest.raises(UserError, match=r"full_image has no weights, a\.pth was given"):
        build_detector("full_image", weights="a.pth")


def _gives(boxes: list[list[float]], scores: list[float]) -> None:
    register_detector(
        "stub", lambda weights, device: lambda image: Boxes(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores))
    )


def test_unusable_boxes_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Derived by hand: NaN, reversed, without area, outside: four go in one warning; one that reaches out is clipped;
    a weak one and one with a NaN score go silently."""
    rows = [[NAN, 0, 1, 1], [3, 0, 1, 1], [2, 2, 2, 2], [9, 0, 12, 3], [-2, 1, 3, 99], [0, 0, 1, 1], [0, 0, 1, 1]]
    _gives(rows, [0.9, 0.9, 0.9, 0.9, 0.8, 0.1, NAN])
    with caplog.at_level(logging.WARNING):
        found = build_detector("stub")(IMAGE)
    assert found.boxes.tolist() == [[0, 1, 3, 6]] and found.scores.tolist() == pytest.approx([0.8])
    (line,) = caplog.messages
    assert "detector stub gave 4 boxes that cannot be used" in line and "1 × lies outside" in line


def test_nothing_found() -> None:
    """Edge case: no boxes are no boxes."""
    _gives([], [])
    assert len(build_detector("stub")(IMAGE)) == 0


RECORD = {"image_id": 7, "height": 6, "width": 8}
RLE = {"size": [6, 8], "counts": [6, 12, 30]}  # columns 1 and 2


def _source(path: Path, entries: list[dict], image: Tensor = IMAGE, **record: int) -> Boxes:
    path.write_text(json.dumps(entries))
    source = build_box_source(str(path))
    assert source is not None
    return source(RECORD | record, image)


def test_boxes_of_a_data_set(tmp_path: Path) -> None:
    """Derived by hand: of a results file the confident entries of the image, of a mask its box; another image has
    none; a detector is asked; of the ground truth nothing is asked."""
    entries = [
        {"image_id": 7, "score": 0.9, "category_id": 3, "segmentation": RLE},
        {"image_id": 7, "score": 0.4, "category_id": 3, "segmentation": RLE},
    ]
    found = _source(tmp_path / "a.json", entries)
    assert found.boxes.tolist() == [[1, 0, 3, 6]] and found.categories == ["3"]
    assert found.masks is not None and found.masks[0]["size"] == [6, 8]
    assert len(_source(tmp_path / "a.json", entries, image_id=8)) == 0
    assert build_box_source("ground_truth") is None
    source = build_box_source("full_image")
    assert source is not None and source(RECORD, IMAGE).boxes.tolist() == [[0, 0, 8, 6]]


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    """Error: the mask of a result does not fit the image; file and image are named."""
    with pytest.raises(UserError, match=r"a\.json, image 7: the RLE's size is \[6, 8\], that of the image \[3, 8\]"):
        _source(tmp_path / "a.json", [{"image_id": 7, "segmentation": RLE}], height=3)


def test_results_of_other_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Derived by hand: an image that the data set lacks is named in a warning; a file of none but such is an error."""
    (tmp_path / "a.json").write_text(json.dumps([{"image_id": i, "bbox": [0, 0, 2, 2]} for i in (7, 8, 7)]))
    source = build_box_source(str(tmp_path / "a.json"))
    assert isinstance(source, ResultsFile)
    source.check("mine", {7, 8, 9})
    assert not caplog.text
    source.check("mine", {7})
    assert "a.json has boxes for 1 images that mine lacks: 8" in caplog.text
    with pytest.raises(
        UserError, match=r"a\.json has no boxes for mine: it has the image_id 7, 8, the data set '7', …"
    ):
        source.check("mine", ["7", "8"])


def test_results_outside_their_image_do_not_end_an_evaluation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Derived by hand: the one outside is dropped and counted, the other stays."""
    entries = [{"image_id": 7, "bbox": [9, 9, 2, 2]}, {"image_id": 7, "bbox": [0, 0, 2, 2]}]
    assert _source(tmp_path / "a.json", entries).boxes.tolist() == [[0, 0, 2, 2]]
    assert "a.json, image 7 gave 1 boxes that cannot be used" in caplog.text


def test_the_configuration_chooses_in_testing_only() -> None:
    """Derived by hand: INPUT.BOXES.SOURCE is asked for boxes of test images; training has those of its annotation."""
    cfg = full_cfg()
    cfg.INPUT.BOXES.SOURCE = "full_image"
    mappers = [AmodalMapper(**mapper_arguments(cfg, training=training)) for training in (False, True)]
    assert isinstance(mappers[0], AmodalMapper) and isinstance(mappers[1], AmodalMapper)
    assert mappers[1].box_source is None and mappers[0].box_source is not None
    assert mappers[0].box_source(RECORD, IMAGE).boxes.tolist() == [[0, 0, 8, 6]]
    cfg.INPUT.BOXES.SOURCE = "no.json"
    with pytest.raises(UserError, match=r"the box file no\.json cannot be read"):
        mapper_arguments(cfg, training=False)
