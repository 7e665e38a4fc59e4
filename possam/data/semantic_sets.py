"""The data sets of open-vocabulary semantic segmentation by name, with their splits (OpenSeg, FC-CLIP, PosSAM).

    ade20k_full_sem_seg_{train,val}              ADE20K-847 (A-847), named as by Mask2Former
    openvocab_pascal_ctx459_sem_seg_{train,val}  PASCAL-Context, all classes (PC-459); this and the next as by FC-CLIP
    openvocab_pascal_ctx59_sem_seg_{train,val}   PASCAL-Context, 59 classes (PC-59)
    openvocab_pascal20_sem_seg_{train,val}       PASCAL VOC 2012 without its background (PAS-20)
    openvocab_pascal21_sem_seg_{train,val}       PASCAL VOC 2012 with its background as a class (PAS-21)

Trees are theirs too, so what their scripts made is read as it is. A folder that holds another number of images is read
all the same; a warning says that the split is not the papers'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sam_common.contracts import SegmentationRecord
from sam_common.data.dataset_spec import DatasetSpec, Source, warn_of_count
from sam_common.data.label_maps import ignore_label, label_maps_spec
from sam_common.io.resources import resource

NUM_IMAGES = {
    "ade20k_full": {"train": 25_574, "val": 2_000},
    "pascal_context": {"train": 4_998, "val": 5_105},
    "pascal_voc": {"train": 1_464, "val": 1_449},
}
"""Of the official splits."""

_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/"
_SOURCES = {
    "ade20k_full": Source(("https://ade20k.csail.mit.edu/",), "ade20k_full"),
    "pascal_context": Source((_VOC, "https://www.cs.stanford.edu/~roozbeh/pascal-context/"), "pascal_context"),
    "pascal_voc": Source((_VOC,), "pascal_voc"),
}

FOLDERS = {"train": "training", "val": "validation"}
"""Split -> the name of its folder in all of these trees."""


def semantic_specs(root: Path) -> list[DatasetSpec]:
    """All of them, under `root`. Nothing is read before use."""
    ade, context, voc = root / "ADE20K_2021_17_01", root / "pascal_ctx_d2", root / "pascal_voc_d2"
    specs = []
    for split, folder in FOLDERS.items():
        ade_images = ade / "images_detectron2" / folder
        # The Pascal scripts of others copy the images into folders of the splits; ours read them where they are.
        context_images = _first_folder(context / "images" / folder, root / "VOCdevkit/VOC2010/JPEGImages")
        voc_images = _first_folder(voc / "images" / folder, root / "VOCdevkit/VOC2012/JPEGImages")
        for name, words, num_classes, images, labels in (
            ("ade20k_full", "ade20k_full", 847, ade_images, ade / "annotations_detectron2"),
            ("openvocab_pascal_ctx459", "pascal_context459", 459, context_images, context / "annotations_ctx459"),
            ("openvocab_pascal_ctx59", "pascal_context59", 59, context_images, context / "annotations_ctx59"),
            ("openvocab_pascal20", "pascal_voc20", 20, voc_images, voc / "annotations_pascal20"),
            ("openvocab_pascal21", "pascal_voc21", 21, voc_images, voc / "annotations_pascal21"),
        ):
            spec = label_maps_spec(
                f"{name}_sem_seg_{split}",
                images=images,
                labels=labels / folder,
                classes=resource(f"configs/vocabularies/{words}.txt"),
            )
            family = words.rstrip("0123456789")
            spec = replace(spec, ignore_label=ignore_label(num_classes), source=_SOURCES[family])
            specs.append(_counted(spec, NUM_IMAGES[family][split]))
    return specs


def _counted(spec: DatasetSpec, total: int) -> DatasetSpec:
    """The same data set, which warns where it has another number of images than the split of the papers."""

    def counted() -> Sequence[SegmentationRecord]:
        records = spec.load()
        warn_of_count(spec.name, len(records), total)
        return records

    return replace(spec, load=counted)


def _first_folder(*folders: Path) -> Path:
    """The first that is there; else the last, of which the error will speak."""
    return next((folder for folder in folders if folder.is_dir()), folders[-1])
