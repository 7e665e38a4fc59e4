"""PosSAM as the engine and the commands know it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from possam.config import add_possam_config, build_possam, checked_sizes
from possam.data.coco_instance import coco_instance_spec
from possam.data.mapper import SegmentationMapper
from possam.data.sets import datasets
from possam.deformable_attention.operator import kernel_in_use
from sam_common.config import CfgNode
from sam_common.contracts import SegmentationRecord
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.label_maps import label_maps_spec
from sam_common.engine.build_data import common_vocabulary
from sam_common.evaluation.mask_ap import MaskAPEvaluator
from sam_common.evaluation.mean_iou import MeanIoUEvaluator
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from sam_common.io.inputs import Input
from sam_common.method import Method, Reader
from sam_common.prediction import Task


def training_set(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> tuple[list[SegmentationRecord], SegmentationMapper]:
    """Every record of data sets that share their classes.

    Raises:
        UserError: they do not, or a key or file cannot be used.
    """
    mapper = SegmentationMapper(common_vocabulary(specs), training=True, **mapper_arguments(cfg))
    return [record for spec in specs for record in spec.load()], mapper


def test_set(cfg: CfgNode, spec: DatasetSpec) -> tuple[Sequence[SegmentationRecord], SegmentationMapper]:
    """Every record, with the classes of the data set to look for."""
    return spec.load(), SegmentationMapper(spec.load_vocabulary(), training=False, **mapper_arguments(cfg))


def mapper_arguments(cfg: CfgNode) -> dict[str, Any]:
    """Of the mapper, but for the classes and whether it trains. Raises UserError where a size is no size."""
    image_size, min_size_test, max_size_test = checked_sizes(cfg, "IMAGE_SIZE", "MIN_SIZE_TEST", "MAX_SIZE_TEST")
    return {
        "min_scale": cfg.INPUT.MIN_SCALE,
        "max_scale": cfg.INPUT.MAX_SCALE,
        "flip": cfg.INPUT.RANDOM_FLIP == "horizontal",
        "color": cfg.INPUT.COLOR_AUG_SSD,
        "image_size": image_size,
        "min_size_test": min_size_test,
        "max_size_test": max_size_test,
    }


def prediction(args: argparse.Namespace, inputs: list[Input], cfg: CfgNode) -> Task:
    """Finds the classes of a vocabulary in each picture."""
    from possam.prediction import WordsTask  # with what draws, which no training needs

    return WordsTask(args, inputs, cfg)


METHOD = Method(
    name="PosSAM",
    add_config=add_possam_config,
    architectures={"PosSAM": build_possam},
    truths={
        "panoptic": (PanopticQualityEvaluator, MeanIoUEvaluator, MaskAPEvaluator),
        "instance": (MaskAPEvaluator,),
        "semantic": (MeanIoUEvaluator,),
    },
    training_set=training_set,
    test_set=test_set,
    readers={
        "coco_panoptic": Reader(coco_panoptic_spec, {"JSON": "json_file", "IMAGES": "images", "PANOPTIC": "panoptic"}),
        "coco_instance": Reader(coco_instance_spec, {"JSON": "json_file", "IMAGES": "images"}),
        "label_maps": Reader(
            label_maps_spec,
            {"IMAGES": "images", "LABELS": "labels", "CLASSES": "classes"},
            {"IMAGE_SUFFIX": "image_suffix", "LABEL_SUFFIX": "label_suffix"},
        ),
    },
    datasets=datasets,
    prediction=prediction,
    kernels=lambda device: f"deformable attention: {kernel_in_use(device)}",
)
