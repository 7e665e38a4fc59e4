"""One data set, one meaning: our specs in Detectron2's catalogs, and its data sets as specs of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets import register_coco_panoptic
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.structures import BoxMode
from PIL import Image

import detectron2_sam
from detectron2_sam.plugin.datasets import (
    class_metadata,
    load_standard_records,
    register_datasets,
    spec_of,
    vocabulary_from_metadata,
)
from sam_common.data import catalog
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.io.resources import resource
from tests.support.public_trees import ADE20K_IDS, COCO_IDS, draw_public_trees

NAME = "generated_test_panoptic"


@pytest.fixture
def foreign(world: Path) -> Iterator[str]:
    """The drawn test set as a user of Detectron2 registers it, with Detectron2's own function and reader."""
    files, name = catalog.get(NAME).files, "foreign_panoptic"
    metadata = class_metadata(catalog.get(NAME).load_vocabulary())
    register_coco_panoptic(name, metadata, files["images"], files["panoptic"], files["json"])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_our_data_sets_are_in_the_catalogs(world: Path) -> None:
    """Records are the spec's; the classes are read when asked for, things and stuff sharing one index."""
    spec = catalog.get(NAME)
    metadata, vocabulary = MetadataCatalog.get(NAME), spec.load_vocabulary()
    records = DatasetCatalog.get(NAME)
    for record in records:
        for segment in record["segments_info"]:
            assert segment.pop("isthing") is vocabulary[segment["category_id"]].is_thing
    assert records == spec.load()
    assert "thing_classes" not in metadata.__dict__
    assert metadata.thing_classes == metadata.stuff_classes == [c.name for c in vocabulary]
    assert metadata.stuff_dataset_id_to_contiguous_id == {c.id: i for i, c in enumerate(vocabulary) if not c.is_thing}
    assert metadata.evaluator_type == "coco_panoptic_seg" and Path(metadata.panoptic_json).is_file()
    with pytest.raises(AttributeError, match="no_such_key"):
        _ = metadata.no_such_key
    assert detectron2_sam.vocabulary_of(NAME) == vocabulary


def test_what_is_registered_is_left_alone() -> None:
    """`coco_2017_val_panoptic` stays Detectron2's own entry."""
    before = MetadataCatalog.get("coco_2017_val_panoptic")
    register_datasets()
    assert MetadataCatalog.get("coco_2017_val_panoptic") is before


def test_a_missing_file_is_named_when_its_classes_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registering needs no file; asking for classes says which one is missing, by Python's rules for attributes."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    register_datasets()
    metadata = MetadataCatalog.get(NAME)
    assert metadata.get("thing_classes", "none") == "none"
    with pytest.raises(AttributeError, match=r"nowhere.*panoptic_test\.json"):
        _ = metadata.thing_classes


def test_entries_of_the_configuration_are_registered(world: Path) -> None:
    """`DATASETS.REGISTER` works under Detectron2 too."""
    files = catalog.get(NAME).files
    entry = {"NAME": "mine", "FORMAT": "coco_panoptic"}
    entry |= {"JSON": files["json"], "IMAGES": files["images"], "PANOPTIC": files["panoptic"]}
    register_datasets([entry])
    assert DatasetCatalog.get("mine") == DatasetCatalog.get(NAME)


def test_a_data_set_of_detectron2s_means_the_same(foreign: str, world: Path) -> None:
    """Read by Detectron2's own reader, it gives our spec's records and classes; only synonyms have no place there."""
    theirs, ours = spec_of(foreign), catalog.get(NAME)
    assert theirs is not ours
    for category, expected in zip(theirs.load_vocabulary(), ours.load_vocabulary(), strict=True):
        assert category == replace(expected, synonyms=expected.synonyms[:1])
    records = {Path(record["file_name"]).stem: record for record in ours.load()}
    assert len(theirs.load()) == len(records)
    for record in theirs.load():
        expected = records[Path(record["file_name"]).stem]
        for key in ("height", "width", "segments_info", "image_id"):
            assert record[key] == expected[key], key


def test_detectron2s_coco_has_our_classes(samples: Path) -> None:
    """The 133 classes of its metadata, as words, are those our reader finds in COCO's own list, in the same order."""
    content = json.loads((samples / "coco_panoptic" / "panoptic_coco_categories.json").read_text())
    folder = samples / "coco_panoptic"
    assert [c["name"] for c in content] == [c["name"] for c in COCO_CATEGORIES]
    spec = coco_panoptic_spec(
        "real", json_file=folder / "panoptic.json", images=folder / "images", panoptic=folder / "panoptic"
    )
    assert detectron2_sam.vocabulary_of("coco_2017_val_panoptic") == spec.load_vocabulary()


def test_things_only_and_stuff_only() -> None:
    """Instance data sets hold things, semantic ones stuff, under their own names."""
    things = detectron2_sam.vocabulary_of("coco_2017_val")
    assert len(things) == 80 and all(category.is_thing for category in things) and things[79].id == 90
    stuff = detectron2_sam.vocabulary_of("ade20k_sem_seg_val")
    assert len(stuff) == 150 and not any(category.is_thing for category in stuff)


def test_separate_numbers_are_refused() -> None:
    """Panoptic FPN's form numbers things and stuff apart: no vocabulary has two classes of one index."""
    with pytest.raises(UserError, match="numbers things and stuff separately"):
        detectron2_sam.vocabulary_of("coco_2017_val_panoptic_separated")


def read(**attributes: Any) -> list[tuple[str, bool, int]]:
    """Name, kind and id of each class of metadata with these attributes, the maps under short names."""
    named = {key.replace("_ids", "_dataset_id_to_contiguous_id"): value for key, value in attributes.items()}
    return [(c.name, c.is_thing, c.id) for c in vocabulary_from_metadata(Metadata(name="made", **named))]


DOG, SKY, CAT = ("dog", True, 7), ("sky", False, 3), ("cat", True, 9)


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param(
            {
                "thing_classes": ["dog", "cat"],
                "stuff_classes": ["dog", "sky", "cat"],
                "thing_ids": {7: 0, 9: 2},
                "stuff_ids": {7: 0, 3: 1, 9: 2},
            },
            id="Mask2Former",
        ),
        pytest.param(
            {
                "thing_classes": ["dog", "sky", "cat"],
                "stuff_classes": ["dog", "sky", "cat"],
                "thing_ids": {7: 0, 9: 2},
                "stuff_ids": {3: 1},
            },
            id="Detectron2",
        ),
        pytest.param(
            {
                "thing_classes": ["dog", "", "cat"],
                "stuff_classes": ["", "sky", ""],
                "thing_ids": {7: 0, 9: 2},
                "stuff_ids": {3: 1},
            },
            id="each list names its own",
        ),
        pytest.param(
            {"stuff_classes": ["dog", "sky", "cat"], "thing_ids": {7: 0, 9: 2}, "stuff_ids": {3: 1}}, id="one list"
        ),
    ],
)
def test_one_range_of_indices_in_every_form(attributes: dict[str, Any]) -> None:
    """Which index is a thing, and its id, the maps say; its name, the list that has it."""
    assert read(**attributes) == [DOG, SKY, CAT]


def test_one_kind_of_classes() -> None:
    """Things only and stuff only, with maps and without: the order of a list is then both index and id."""
    assert read(thing_classes=["dog", "cat"], thing_ids={7: 0, 9: 1}) == [DOG, CAT]
    assert read(stuff_classes=["sky"], stuff_ids={3: 0}, thing_ids={}) == [SKY]
    assert read(thing_classes=["dog", "cat"]) == [("dog", True, 0), ("cat", True, 1)]
    assert read(stuff_classes=["sky", "sea"]) == [("sky", False, 0), ("sea", False, 1)]
    assert read(thing_classes=["dog"], stuff_classes=["dog", "sky"]) == [("dog", True, 0), ("sky", False, 1)]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        pytest.param({}, "neither thing_classes nor stuff_classes", id="no classes"),
        pytest.param(
            {
                "thing_classes": ["dog"],
                "stuff_classes": ["things", "sky"],
                "thing_ids": {7: 0},
                "stuff_ids": {0: 0, 3: 1},
            },
            "index 0 stands for the ids 7 and 0",
            id="separated",
        ),
        pytest.param(
            {"thing_classes": ["dog"], "stuff_classes": ["sky"], "thing_ids": {7: 0}, "stuff_ids": {3: 1}},
            "1 thing_classes and 1 stuff_classes",
            id="two lists one after the other",
        ),
        pytest.param({"thing_classes": ["dog"], "thing_ids": {7: 0, 9: 1}}, "1 thing_classes", id="too few names"),
        pytest.param({"thing_classes": ["dog"], "stuff_classes": ["sky"]}, "1 stuff_classes", id="two lists, no map"),
    ],
)
def test_indices_without_one_name(attributes: dict[str, Any], said: str) -> None:
    """Error: no vocabulary can be made of these; the line says what the metadata has."""
    with pytest.raises(UserError, match=f"data set made .*{said}"):
        read(**attributes)


COCO_MODULE, ADE20K_MODULE = "register_coco_panoptic_annos_semseg", "register_ade20k_panoptic"


@pytest.mark.parametrize(
    ("clone", "module", "name"),
    [
        ("Mask2Former", ADE20K_MODULE, "ade20k_panoptic_val"),
        ("Mask2Former", COCO_MODULE, "coco_2017_val_panoptic_with_sem_seg"),
        ("fc-clip", ADE20K_MODULE, "openvocab_ade20k_panoptic_val"),
        ("fc-clip", COCO_MODULE, "openvocab_coco_2017_val_panoptic_with_sem_seg"),
    ],
)
def test_data_sets_that_projects_register(clone: str, module: str, name: str, tmp_path: Path) -> None:
    """Mask2Former's and FC-CLIP's registrations: classes by index, sizes that their records lack, and the truth of AP
    and mIoU from the files they name."""
    package = Path(clone.replace("-", "").lower(), "data", "datasets")
    folder = Path(os.environ.get("BENCH_PEERS", "")).resolve() / clone  # FC-CLIP reads its words from there
    if not (folder / package / f"{module}.py").is_file():
        pytest.skip(f"BENCH_PEERS names no folder with a clone of {clone}")
    draw_public_trees(tmp_path)
    command = [sys.executable, "-m", "tests.support.peer_catalog", str(package), module, name, str(tmp_path)]
    environment = {
        **os.environ,
        "DETECTRON2_DATASETS": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
    }
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=120)
    told = json.loads((tmp_path / "told.json").read_text())
    ids = COCO_IDS if module == COCO_MODULE else ADE20K_IDS
    shipped = parse_vocabulary(resource(f"configs/vocabularies/{'coco' if ids is COCO_IDS else 'ade20k'}.txt"))
    assert [entry[:2] for entry in told["vocabulary"]] == [[id, c.is_thing] for id, c in zip(ids, shipped, strict=True)]
    if clone == "fc-clip" and ids is COCO_IDS:
        assert told["vocabulary"][0][2][:3] == ["person", "child", "girl"]
    (record,) = told["records"]
    thing, stuff = (next(i for i, c in enumerate(shipped) if c.is_thing is kind) for kind in (True, False))
    assert (record["width"], record["height"]) == (64, 48)
    assert [segment["category_id"] for segment in record["segments_info"]] == [thing, stuff]
    (instances,), (labels,) = told["judged"]["instance"], told["judged"]["semantic"]
    assert instances["image_id"] == labels["image_id"] == record["image_id"]
    assert [entry["category_id"] for entry in instances["annotations"]] == [thing]
    assert labels["sem_seg_file_name"].endswith("000000000001.png") and labels["num_classes"] == len(shipped)
    assert told["theirs"] == ["InstanceEvaluator", "SemanticEvaluator"]


def test_an_unknown_name_offers_the_nearest() -> None:
    """The error is that of our own catalog."""
    with pytest.raises(UserError, match=r"unknown data set 'generated_tests_panoptic'.*generated_test_panoptic"):
        spec_of("generated_tests_panoptic")


def test_sizes_are_read_upright_from_headers(tmp_path: Path) -> None:
    """A photograph stored on its side has the size it is shown with; what is not in a record is filled in."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "side.jpg", exif=exif)
    DatasetCatalog.register("sizes", lambda: [{"file_name": str(tmp_path / "side.jpg")}])
    try:
        (record,) = load_standard_records("sizes")
    finally:
        DatasetCatalog.remove("sizes")
    assert (record["height"], record["width"]) == (30, 20)
    assert record["image_id"] == record["file_name"]


def test_records_of_any_kind_become_plain() -> None:
    """Paths, NumPy's numbers, boxes by corners and masks in bytes, as users' registrations hold them, fit into JSON."""
    annotation = {"bbox": np.array([1.0, 2.0, 4.0, 6.0]), "bbox_mode": BoxMode.XYXY_ABS, "category_id": np.int64(0)}
    annotation["segmentation"] = {"size": [9, 9], "counts": b"52203"}
    record = {"file_name": Path("a.jpg"), "image_id": np.int64(7), "height": np.int64(9), "width": 9}
    record |= {"annotations": [annotation], "sem_seg_file_name": Path("a.png")}
    DatasetCatalog.register("numbers", lambda: [record])
    MetadataCatalog.get("numbers").set(stuff_classes=["sky"], ignore_label=254)
    try:
        (plain,) = json.loads(json.dumps(load_standard_records("numbers")))
    finally:
        DatasetCatalog.remove("numbers")
        MetadataCatalog.remove("numbers")
    assert (plain["file_name"], plain["image_id"], plain["height"]) == ("a.jpg", 7, 9)
    assert (plain["num_classes"], plain["ignore_label"]) == (1, 254)
    (found,) = plain["annotations"]
    assert found["bbox"] == [1, 2, 3, 4] and found["segmentation"]["counts"] == "52203" and found["iscrowd"] == 0


def test_registering_again_keeps_what_a_user_added(world: Path) -> None:
    """Colours set on our metadata survive; a moved root does not keep the old files."""
    MetadataCatalog.get(NAME).thing_colors = [(1, 2, 3)]
    register_datasets()
    assert MetadataCatalog.get(NAME).thing_colors == [(1, 2, 3)]
    assert MetadataCatalog.get(NAME).as_dict()["thing_classes"][0] == "plain red circle"
