"""The guide to one's own data: its files and commands, run as they stand, but for the number of iterations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detectron2_sam.commands import fewshot, predict, validate_amodal
from detectron2_sam.commands import train as train_net
from sam_common.data import catalog
from tests.support.documented import ROOT, named_files, shell_commands
from tests.support.draw_shelf import draw_shelf
from tests.support.segments import read_segments

GUIDE = (ROOT / "docs" / "custom_data.md").read_text()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the drawn pictures and the guide's configuration files, in which its commands are given."""
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    monkeypatch.chdir(tmp_path)
    draw_shelf(tmp_path / "shelf", train=3, val=1)
    files = named_files(GUIDE)
    assert list(files) == ["shelf.yaml", "shelf_labels.yaml", "shelf_few.yaml", "shelf_amodal.yaml"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_commands_of_the_guide(shelf: Path) -> None:
    """All trainings end with a table of the truth they have; the predictions write COCO results and labels; nothing is
    wrong with the amodal masks."""
    commands = [command.arguments for command in shell_commands(GUIDE)]
    names = ["train", "predict", "train", "fewshot", "predict", "train", "predict", "validate-amodal", "train"]
    assert [command[0] for command in commands] == names
    one = ["SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "1"]
    short = [*one, "MODEL.POSSAM.LOSS.NUM_POINTS", "64"]
    arguments = [command[1:] for command in commands]
    train, found, train_labels, few, labelled, train_few, labelled_few, validate, train_amodal = arguments
    train_net.main([*train, *short])
    predict.main(found)
    train_net.main([*train_labels, *short])
    two = ["SOLVER.MAX_ITER", "1", "MODEL.DEVICE", "cpu"]
    fewshot.main([*few, "--shots", "2", "--seeds", "1", "--config-file", "configs/amsam_T.yaml", *two])
    assert predict.main([*labelled, "MODEL.DEVICE", "cpu"]) == 0
    train_net.main([*train_few, *one, "DATASETS.SHOTS", "2"])
    assert predict.main(labelled_few) == 0
    assert validate_amodal.main(validate) == 0
    train_net.main([*train_amodal, *one])
    results = {
        name: json.loads((shelf / "output" / name / "inference" / "shelf_val" / "results.json").read_text())["results"]
        for name in ("shelf", "shelf_labels", "shelf_few", "shelf_amodal")
    }
    assert {"segm", "bbox"} <= results["shelf"].keys() and "sem_seg" in results["shelf_labels"]
    assert {"Dice-ball", "Dice-box"} <= results["shelf_few"]["few_shot"].keys()
    assert (shelf / "few" / "report.html").is_file() and (shelf / "labelled" / "labels" / "000.png").is_file()
    assert {"amodal", "visible_as_amodal"} <= results["shelf_amodal"].keys()
    assert isinstance(json.loads((shelf / "found" / "instances.json").read_text()), list)


def test_both_forms_say_the_same(shelf: Path) -> None:
    """Invariant: polygons and label map leave the same pixels to the wall, but for the outlines."""
    images = {"IMAGES": "shelf/images/val"}
    polygons = {"NAME": "a", "FORMAT": "coco_instance", "JSON": "shelf/val.json"}
    labels = {"NAME": "b", "FORMAT": "label_maps", "LABELS": "shelf/labels/val", "CLASSES": "shelf/classes.txt"}
    catalog.register_from_config([polygons | images, labels | images])
    _, masks, _ = read_segments(catalog.get("a").load()[0])
    classes, regions, _ = read_segments(catalog.get("b").load()[0])
    background = regions[classes == 0].any(0)
    assert (masks.any(0) == ~background).float().mean() > 0.97
