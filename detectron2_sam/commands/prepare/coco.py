"""COCO: semantic label maps from the panoptic annotations; crowds have their class."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectron2_sam.commands.prepare.preparation import convert_images, exit_status, present_splits
from detectron2_sam.methods import register_datasets
from sam_common.contracts import SegmentationRecord
from sam_common.data import catalog
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.errors import UserError

VOID = 255


def label_map(record: SegmentationRecord, index_of: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class indices [H, W] of a panoptic record; `index_of` [C] renumbers its classes."""
    segments = np.array([segment["category_id"] for segment in record["segments_info"]], np.int64)
    return np.append(np.uint8(VOID), index_of[segments])[read_ground_truth(record).numpy()]


def prepare(panoptic: DatasetSpec, semantic: DatasetSpec, workers: int) -> list[str]:
    """Makes the label maps of a split; returns what was wrong with the files that were skipped."""
    names = [category.name for category in semantic.load_vocabulary()]
    found = [category.name for category in panoptic.load_vocabulary()]
    if set(found) - set(names):
        raise UserError(f"{panoptic.files['json']} has classes that are not COCO's: {sorted(set(found) - set(names))}")
    index_of = np.array([names.index(name) for name in found], np.uint8)

    def targets(record: SegmentationRecord) -> list[Path]:
        png = Path(record["pan_seg_file_name"]).relative_to(panoptic.files["panoptic"])
        return [semantic.files["labels"] / png]

    def read(record: SegmentationRecord) -> list[NDArray[np.uint8]]:
        return [label_map(record, index_of)]

    return convert_images(semantic.name, panoptic.load(), targets, read, workers=workers)


def main(args: argparse.Namespace) -> int:
    """Returns the exit status."""
    register_datasets(args.root)
    sources = {split: Path(catalog.get(f"coco_2017_{split}_panoptic").files["json"]) for split in ("val", "train")}
    pairs = [
        (catalog.get(f"coco_2017_{split}_panoptic"), catalog.get(f"coco_2017_{split}_sem_seg"))
        for split in present_splits("coco", sources)
    ]
    return exit_status([fault for pair in pairs for fault in prepare(*pair, workers=args.workers)])
