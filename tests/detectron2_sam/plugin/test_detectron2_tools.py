"""Detectron2's tools/visualize_data.py and visualize_json_results.py on every kind of data set of ours."""

from __future__ import annotations

import itertools
import json
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import detectron2.data
import pytest
from detectron2.data import DatasetCatalog

from detectron2_sam import register
from detectron2_sam.commands.prepare.generated import prepare
from sam_common.data import catalog
from tests.support.public_trees import draw_public_trees

KINDS = {
    "panoptic": ("generated_test_panoptic", "ade20k_panoptic_val"),
    "instance": ("ade20k_instance_val",),
    "semantic": ("openvocab_pascal_ctx59_sem_seg_val", "ade20k_full_sem_seg_val"),
    "amodal": ("generated_test_amodal", "kins_train", "cocoa_cls_train"),
    "masks": ("isic2018_test",),
}
NAMES = [name for names in KINDS.values() for name in names]
Tool = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The public data sets in miniature and a drawn world."""
    root = tmp_path_factory.mktemp("trees")
    draw_public_trees(root)
    prepare(root, train=1, test=1, size=64)
    return root


@pytest.fixture
def tool(trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """(program, arguments) -> the pictures that it writes; a training's endless batches end after one."""
    folder = Path(os.environ.get("BENCH_PEERS", ""), "detectron2", "tools")
    if not folder.is_dir():
        pytest.skip("BENCH_PEERS names no folder with a clone of Detectron2")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(trees))
    register()
    build = detectron2.data.build_detection_train_loader
    monkeypatch.setattr(detectron2.data, "build_detection_train_loader", lambda cfg: itertools.islice(build(cfg), 1))

    def run(program: str, *arguments: str) -> list[Any]:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        runpy.run_path(str(folder / program), run_name="__main__")
        return [cv2.imread(str(path)) for path in sorted((tmp_path / "drawn").iterdir())]

    return run


def test_every_kind_is_here(trees: Path, tool: Tool) -> None:
    """The names below are of the kinds that the table says."""
    assert {kind: {catalog.get(name).truth for name in names} for kind, names in KINDS.items()} == {
        kind: {kind} for kind in KINDS
    }


@pytest.mark.parametrize("name", NAMES)
def test_annotations_are_drawn(name: str, tool: Tool, tmp_path: Path) -> None:
    """One picture an image, with something drawn into it."""
    output = str(tmp_path / "drawn")
    pictures = tool(
        "visualize_data.py", "--source", "annotation", "--output-dir", output, "DATASETS.TRAIN", f"('{name}',)"
    )
    records = DatasetCatalog.get(name)
    assert len(pictures) == len({record["file_name"] for record in records})
    shown = {Path(record["file_name"]).stem: cv2.imread(record["file_name"]) for record in records}
    for path, picture in zip(sorted((tmp_path / "drawn").iterdir()), pictures, strict=True):
        assert picture.shape == shown[path.stem].shape and (picture != shown[path.stem]).mean() > 0.05


@pytest.mark.parametrize("name", KINDS["instance"] + KINDS["amodal"])
def test_batches_are_drawn(name: str, tool: Tool, tmp_path: Path) -> None:
    """Of the sets with instances, as Detectron2's mapper makes them; of segments and label maps it makes none."""
    options = ("SOLVER.IMS_PER_BATCH", "1", "INPUT.MASK_FORMAT", "bitmask")
    output = ("--output-dir", str(tmp_path / "drawn"))
    assert tool("visualize_data.py", "--source", "dataloader", *output, "DATASETS.TRAIN", f"('{name}',)", *options)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_drawn_beside_the_truth(name: str, tool: Tool, tmp_path: Path) -> None:
    """A JSON of COCO results with the data set's own ids: both pictures, twice as wide as the image."""
    vocabulary, records = catalog.get(name).load_vocabulary(), DatasetCatalog.get(name)
    things = [category.id for category in vocabulary if category.is_thing]
    found = {"image_id": records[0]["image_id"], "bbox": [4, 4, 20, 20], "score": 0.9}
    (tmp_path / "results.json").write_text(json.dumps([{**found, "category_id": id} for id in things[:1]]))
    paths = ("--input", str(tmp_path / "results.json"), "--output", str(tmp_path / "drawn"))
    pictures = tool("visualize_json_results.py", *paths, "--dataset", name)
    assert len(pictures) == len({record["file_name"] for record in records})
    assert {picture.shape[1] for picture in pictures} == {2 * record["width"] for record in records}
