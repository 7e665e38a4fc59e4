"""Real files of the documented formats, as their publishers have them, through the readers and the prepare commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from amsam.data.image_masks import read_labels
from detectron2_sam.commands import prepare
from plug.data.annotations import read_amodal
from possam.data.segments import read_targets
from sam_common.boxes.boxes import tight_boxes
from sam_common.data import catalog
from sam_common.data.remarks import log_once
from sam_common.evaluation.mask_ap import MaskAPEvaluator
from sam_common.structures import Instances

COUNTS = {  # images, and objects where there are annotations of them
    "balloon_train": (8, 47),
    "balloon_test": (3, 13),
    "camvid_train": (20, None),
    "camvid_test": (12, None),
    "stuff_train": (10, None),
    "stuff_test": (6, None),
    "adeamodal_train": (1, 51),
    "adeamodal_test": (1, 24),
    "person_train": (28, None),
    "ph2_train": (6, None),
    "ph2_test": (5, None),
    "kvasir_train_png": (5, None),
    "human_test": (32, None),
}
PATHS = ("JSON", "IMAGES", "LABELS", "MASKS", "CLASSES")


@pytest.fixture
def photos(samples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of photographs, whose data sets are registered by an empty catalog."""
    folder = samples / "photos"
    if not (folder / "registers.json").is_file():
        pytest.skip("DETECTRON2_SAM_SAMPLES has no photos/registers.json")
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    log_once.cache_clear()
    entries = json.loads((folder / "registers.json").read_text())
    catalog.register_from_config(
        {key: str(folder / value) if key in PATHS else value for key, value in entry.items()} for entry in entries
    )
    yield folder


@pytest.mark.parametrize("name", COUNTS)
def test_every_format_is_read(photos: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is left out, and the truth of the first image is there, of its size."""
    images, objects = COUNTS[name]
    spec = catalog.get(name)
    records = spec.load()
    assert len(records) == images and objects in (None, sum(len(record.get("annotations", ())) for record in records))
    assert "left out" not in caplog.text and "skipped" not in caplog.text
    record, read = records[0], {"amodal": read_amodal, "masks": read_labels}.get(spec.truth)
    truth = read(record) if read else read_targets(record, lambda layer: layer)[1]
    masks = truth[0] if isinstance(truth, tuple) else truth
    assert masks.shape[-2:] == (record["height"], record["width"]) and masks.any()


def test_what_a_tool_wrote_about_areas(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A real export has an object of area 0, which is counted and told. The true masks as predictions have AP 100."""
    assert 0 not in [entry["area"] for record in catalog.get("balloon_train").load() for entry in record["annotations"]]
    assert "1 × an area" in caplog.text and caplog.text.rstrip().endswith(": 253")
    spec = catalog.get("balloon_test")
    evaluator = MaskAPEvaluator(spec, output_dir=tmp_path)
    for record in spec.load():
        classes, masks = read_targets(record, lambda layer: layer)
        size = record["height"], record["width"]
        found = Instances(size, masks, torch.ones(len(masks)), classes, tight_boxes(masks))
        evaluator.process([{"image_id": record["image_id"]}], [{"instances": found}])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] == pytest.approx(100) and results["bbox"]["AP75"] == pytest.approx(100)


def test_coco(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The official tree: no annotation is left out, no box or area is changed; crowds are told."""
    catalog.register_builtin(photos / "coco")
    for name, images, objects in (("train", 148, 1291), ("val", 79, 689)):
        records = catalog.get(f"coco_2017_{name}").load()
        file = json.loads(Path(catalog.get(f"coco_2017_{name}").files["json"]).read_bytes())
        given = {entry["id"]: entry for entry in file["annotations"]}
        found = [entry for record in records for entry in record["annotations"]]
        assert (len(records), len(found)) == (images, objects)
        assert all(entry[key] == given[entry["id"]][key] for entry in found for key in ("bbox", "area", "iscrowd"))
        assert len(catalog.get(f"coco_2017_{name}_panoptic").load()) == 80
    assert "left out" not in caplog.text and caplog.text.count("a crowd") == 4


def test_cocoa(samples: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No occlusion rate of the published files contradicts their masks."""
    folder = str(samples / "cocoa")
    log_once.cache_clear()
    catalog.register_from_config([{"NAME": "real_cocoa", "FORMAT": "cocoa", "JSON": folder, "IMAGES": folder}])
    assert len(catalog.get("real_cocoa").load()) == 5 and "rate" not in caplog.text


@pytest.mark.parametrize(
    ("source", "tree", "links", "arguments", "made"),
    [
        ("ade20k", "ADEChallengeData2016", ("images", "annotations"), ("ade20k", "--semantic-only"), "ade20k_sem_seg"),
        ("ade20k_full", "ADE20K_2021_17_01", ("images",), ("ade20k_full",), "ade20k_full_sem_seg"),
        ("coco", "coco", ("annotations", "val2017", "panoptic_val2017"), ("coco",), "coco_2017"),
    ],
)
def test_prepared_trees(
    photos: Path, tmp_path: Path, source: str, tree: str, links: tuple[str, ...], arguments: tuple[str, ...], made: str
) -> None:
    """The published files become data sets whose label maps have the size and some classes of their images."""
    (tmp_path / tree).mkdir()
    for name in links:
        (tmp_path / tree / name).symlink_to(photos / source / tree / name)
    if source == "coco":  # a part of it, and one split
        (tmp_path / tree / "annotations").unlink()
        content = json.loads((photos / "coco/coco/annotations/panoptic_val2017.json").read_bytes())
        content["annotations"] = content["annotations"][:4]
        (tmp_path / tree / "annotations").mkdir()
        (tmp_path / tree / "annotations/panoptic_val2017.json").write_text(json.dumps(content))
    assert prepare.main([*arguments, "--root", str(tmp_path)]) == 0
    catalog.register_builtin(tmp_path)
    records = catalog.get(f"{made}_val{'_sem_seg' if source == 'coco' else ''}").load()
    for record in records[:4]:
        classes, masks = read_targets(record, lambda layer: layer)
        assert len(classes) > 1 and masks.shape[1:] == (record["height"], record["width"])
