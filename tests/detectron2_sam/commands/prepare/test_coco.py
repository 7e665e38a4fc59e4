"""COCO's official panoptic tree, in miniature, gets its semantic label maps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam_common.data import catalog
from sam_common.data.images import write_segment_ids
from tests.support.segments import read_segments

PERSON, RUG, SKY = 1, 200, 187  # COCO's ids: the first, the last of 133, and index 119


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two validation images, 5 wide and 2 high: a person, a crowd of persons, sky, rug and one void pixel."""
    coco = tmp_path / "coco"
    segments = [
        {"id": 7, "category_id": PERSON, "iscrowd": 0, "area": 2},
        {"id": 300, "category_id": PERSON, "iscrowd": 1, "area": 2},
        {"id": 9, "category_id": SKY, "iscrowd": 0, "area": 2},
        {"id": 70000, "category_id": RUG, "iscrowd": 0, "area": 3},
    ]
    ids = torch.tensor([[7, 300, 9, 70000, 0], [7, 300, 9, 70000, 70000]])
    (coco / "val2017").mkdir(parents=True)
    for stem in ("000000000139", "000000000285"):
        write_segment_ids(coco / "panoptic_val2017" / f"{stem}.png", ids)
        Image.new("RGB", (5, 2)).save(coco / "val2017" / f"{stem}.jpg")
    numbers = {139: "000000000139", 285: "000000000285"}
    names = {PERSON: ("person", 1), SKY: ("sky-other-merged", 0), RUG: ("rug-merged", 0)}
    content = {
        "images": [{"id": i, "file_name": f"{stem}.jpg", "height": 2, "width": 5} for i, stem in numbers.items()],
        "annotations": [
            {"image_id": i, "file_name": f"{stem}.png", "segments_info": segments} for i, stem in numbers.items()
        ],
        "categories": [{"id": i, "name": name, "isthing": thing} for i, (name, thing) in names.items()],
    }
    (coco / "annotations").mkdir()
    (coco / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    return tmp_path


def test_label_maps_by_hand(root: Path, run_script: Callable[..., int], capsys) -> None:
    """Derived by hand: indices are places in COCO's list of 133, whatever classes the JSON lists; crowds count."""
    assert run_script("coco", "--root", str(root)) == 0
    assert "train is left out" in capsys.readouterr().err
    catalog.register_builtin(root)
    spec = catalog.get("coco_2017_val_sem_seg")
    records, vocabulary = spec.load(), spec.load_vocabulary()
    assert [record["image_id"] for record in records] == ["000000000139", "000000000285"] and len(vocabulary) == 133
    pixels = np.array(Image.open(records[0]["sem_seg_file_name"]))
    assert pixels.tolist() == [[0, 0, 119, 132, 255], [0, 0, 119, 132, 132]]
    classes, masks, _ = read_segments(records[0])
    assert [vocabulary[int(index)].name for index in classes] == ["person", "sky-other-merged", "rug-merged"]
    assert masks.sum((1, 2)).tolist() == [4, 2, 3]


def test_broken_and_started_again(root: Path, run_script: Callable[..., int], capsys) -> None:
    """A damaged PNG is skipped and named, status 1; mended, a second run makes what is missing."""
    png = root / "coco" / "panoptic_val2017" / "000000000139.png"
    whole = png.read_bytes()
    png.write_bytes(whole[:40])
    assert run_script("coco", "--root", str(root)) == 1
    said = capsys.readouterr().err
    assert "1 broken files were skipped:" in said and str(png) in said
    made = root / "coco" / "panoptic_semseg_val2017"
    assert [path.name for path in made.iterdir()] == ["000000000285.png"]
    png.write_bytes(whole)
    assert run_script("coco", "--root", str(root)) == 0
    assert len(list(made.iterdir())) == 2


def test_foreign_classes(root: Path, run_script: Callable[..., int], capsys) -> None:
    """Error: a JSON with classes that are not COCO's, and a root without COCO, are one line, status 2."""
    path = root / "coco" / "annotations" / "panoptic_val2017.json"
    path.write_text(path.read_text().replace("rug-merged", "magic carpet"))
    assert run_script("coco", "--root", str(root)) == 2
    assert "magic carpet" in capsys.readouterr().err
    assert run_script("coco", "--root", str(root / "nowhere")) == 2
    assert "see detectron2-sam prepare coco --help" in capsys.readouterr().err


def test_results_that_cannot_be_written(root: Path, run_script: Callable[..., int], capsys) -> None:
    """Error: where the target folder cannot be made, the first failure ends the work, in one line, status 2."""
    (root / "coco" / "panoptic_semseg_val2017").write_text("in the way")
    assert run_script("coco", "--root", str(root)) == 2
    said = capsys.readouterr().err
    assert "error: cannot write" in said and "skipped" not in said


def test_real_coco(samples: Path, tmp_path: Path, run_script: Callable[..., int]) -> None:
    """On the two real images, the pixels of each class are those of its segments in the official JSON."""
    coco, source = tmp_path / "coco", samples / "coco_panoptic"
    (coco / "annotations").mkdir(parents=True)
    (coco / "annotations" / "panoptic_val2017.json").symlink_to(source / "panoptic.json")
    (coco / "val2017").symlink_to(source / "images")
    (coco / "panoptic_val2017").symlink_to(source / "panoptic")
    assert run_script("coco", "--root", str(tmp_path)) == 0
    catalog.register_builtin(tmp_path)
    panoptic = catalog.get("coco_2017_val_panoptic")
    names = [category.name for category in catalog.get("coco_2017_val_sem_seg").load_vocabulary()]
    for record in panoptic.load():
        areas: Counter[str] = Counter()
        for segment in record["segments_info"]:
            areas[panoptic.load_vocabulary()[segment["category_id"]].name] += segment["area"]
        png = coco / "panoptic_semseg_val2017" / Path(record["pan_seg_file_name"]).name
        values, counts = np.unique(np.array(Image.open(png)), return_counts=True)
        found = {names[value]: count for value, count in zip(values, counts, strict=True) if value != 255}
        assert found == areas
