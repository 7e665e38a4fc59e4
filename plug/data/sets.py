"""KINS and COCOA by name, and the generated world's amodal truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from plug.data.coco_amodal import coco_amodal_spec
from plug.data.cocoa import cocoa_spec
from plug.data.generated import generated_amodal_specs
from sam_common.data.dataset_spec import DatasetSpec, Source

_COCO = "https://cocodataset.org/#download"
_COCOA = Source((_COCO, "https://github.com/Wakeupbuddy/amodalAPI"), "cocoa")
_COCOA_CLS = Source((_COCO, "https://github.com/UARK-AICV/AISFormer"), "cocoa")
_KINS = Source(
    (
        "https://github.com/qqlu/Amodal-Instance-Segmentation-through-KINS-Dataset",
        "http://www.cvlibs.net/datasets/kitti/eval_object.php?obj_benchmark=2d",
    ),
    "kins",
)


def datasets(root: Path) -> list[DatasetSpec]:
    """All of them, under `root`. Nothing is read before use."""
    return [*_kins(root), *_cocoa(root), *generated_amodal_specs(root)]


def _kins(root: Path) -> list[DatasetSpec]:
    """Of the two schemas, the later one where both files lie there: published results are on its test set."""
    specs = []
    for split, files, images in (
        ("train", ("update_train_2020.json", "instances_train.json"), "training"),
        ("val", ("update_test_2020.json", "instances_val.json"), "testing"),
    ):
        json_file = _first_file(
            [folder / file for file in files for folder in (root / "KINS", root / "KINS/annotations")]
        )
        spec = coco_amodal_spec(f"kins_{split}", json_file=json_file, images=root / "KINS" / images / "image_2")
        specs.append(replace(spec, source=_KINS))
    return specs


def _cocoa(root: Path) -> list[DatasetSpec]:
    annotations, specs = root / "cocoa" / "annotations", []
    for split in ("train", "val"):
        images = root / "coco" / f"{split}2014"
        original = annotations / f"COCO_amodal_{split}2014.json"
        with_classes = annotations / f"COCO_amodal_{split}2014_with_classes.json"
        specs += [
            replace(cocoa_spec(f"cocoa_{split}", json_file=original, images=images), source=_COCOA),
            replace(coco_amodal_spec(f"cocoa_cls_{split}", json_file=with_classes, images=images), source=_COCOA_CLS),
        ]
    return specs


def _first_file(paths: list[Path]) -> Path:
    """The first that is there; else the first, which the error will name."""
    return next((path for path in paths if path.is_file()), paths[0])
