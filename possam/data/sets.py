"""COCO and ADE20K by name, with Detectron2's names and trees; the sets of `semantic_sets.py` beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from possam.data.coco_instance import coco_instance_spec
from possam.data.semantic_sets import semantic_specs
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec, Source
from sam_common.data.generated.specs import scene_specs
from sam_common.data.label_maps import label_maps_spec
from sam_common.data.vocabulary_file import with_synonyms
from sam_common.io.resources import resource

_COCO = Source(("https://cocodataset.org/#download",), "coco")
_ADE20K = Source(("http://sceneparsing.csail.mit.edu/",), "ade20k")


def datasets(root: Path) -> list[DatasetSpec]:
    """All of them, and the scenes of the generated world, under `root`. Nothing is read before use."""
    return [
        *(replace(spec, source=_COCO) for spec in _coco(root)),
        *(replace(spec, source=_ADE20K) for spec in _ade20k(root)),
        *semantic_specs(root),
        *scene_specs(root),
    ]


def _coco(root: Path) -> list[DatasetSpec]:
    coco, words = root / "coco", resource("configs/vocabularies/coco.txt")
    specs = []
    for split in ("train", "val"):
        annotations, images = coco / "annotations", coco / f"{split}2017"
        panoptic = coco_panoptic_spec(
            f"coco_2017_{split}_panoptic",
            json_file=annotations / f"panoptic_{split}2017.json",
            images=images,
            panoptic=coco / f"panoptic_{split}2017",
        )
        instances = coco_instance_spec(
            f"coco_2017_{split}", json_file=annotations / f"instances_{split}2017.json", images=images
        )
        semantic = label_maps_spec(
            f"coco_2017_{split}_sem_seg", images=images, labels=coco / f"panoptic_semseg_{split}2017", classes=words
        )
        panoptic = replace(panoptic, beside={"instance": instances})
        specs += [with_synonyms(panoptic, words), with_synonyms(instances, words), semantic]
    return specs


def _ade20k(root: Path) -> list[DatasetSpec]:
    ade, words = root / "ADEChallengeData2016", resource("configs/vocabularies/ade20k.txt")
    specs = []
    for split, folder in (("train", "training"), ("val", "validation")):
        images = ade / "images" / folder
        panoptic = coco_panoptic_spec(
            f"ade20k_panoptic_{split}",
            json_file=ade / f"ade20k_panoptic_{split}.json",
            images=images,
            panoptic=ade / f"ade20k_panoptic_{split}",
        )
        instances = coco_instance_spec(
            f"ade20k_instance_{split}", json_file=ade / f"ade20k_instance_{split}.json", images=images
        )
        semantic = label_maps_spec(
            f"ade20k_sem_seg_{split}", images=images, labels=ade / "annotations_detectron2" / folder, classes=words
        )
        panoptic = replace(panoptic, beside={"instance": instances, "semantic": semantic})
        specs += [with_synonyms(panoptic, words), with_synonyms(instances, words), semantic]
    return specs
