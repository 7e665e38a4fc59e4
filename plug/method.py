"""PLUG as the engine and the commands know it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from plug.config import add_plug_config, build_plug, build_vanilla_sam
from plug.data.annotations import group_instances
from plug.data.coco_amodal import coco_amodal_spec
from plug.data.cocoa import cocoa_spec
from plug.data.generated import write_amodal
from plug.data.mapper import AmodalMapper
from plug.data.sets import datasets
from plug.evaluation.evaluator import AmodalEvaluator
from plug.structures import AmodalRecord
from sam_common.boxes.config import box_jitter, box_source
from sam_common.boxes.detectors import ResultsFile
from sam_common.config import CfgNode
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.errors import UserError
from sam_common.io.inputs import Input
from sam_common.method import Method, Reader
from sam_common.prediction import Task

logger = logging.getLogger(__name__)


def training_set(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> tuple[list[AmodalRecord], AmodalMapper]:
    """Groups of at most `INPUT.INSTANCES_PER_IMAGE` objects of one image; classes are not learned, so they may differ.

    Raises:
        UserError: a key or file cannot be used.
    """
    most, solver = cfg.INPUT.INSTANCES_PER_IMAGE, cfg.SOLVER
    if most < 1:
        raise UserError(f"INPUT.INSTANCES_PER_IMAGE is {most}; give at least 1")
    groups = group_instances([record for spec in specs for record in spec.load()], most)
    _tell_epochs(groups, solver.MAX_ITER, solver.IMS_PER_BATCH)
    return groups, AmodalMapper(**mapper_arguments(cfg, training=True))


def _tell_epochs(groups: Sequence[AmodalRecord], max_iter: int, batch_size: int) -> None:
    objects = sum(len(group["annotations"]) for group in groups)
    if groups:
        logger.info(
            "%d objects in %d groups: %d iterations of %d groups are %.1f epochs, %.1f objects each in the mean",
            *(objects, len(groups), max_iter, batch_size, max_iter * batch_size / len(groups)),
            batch_size * objects / len(groups),
        )


def test_set(cfg: CfgNode, spec: DatasetSpec) -> tuple[Sequence[AmodalRecord], AmodalMapper]:
    """Every record, with boxes of `INPUT.BOXES.SOURCE`.

    Raises:
        UserError: that is a file of boxes for other images, or a key cannot be used.
    """
    records, mapper = spec.load(), AmodalMapper(**mapper_arguments(cfg, training=False))
    if isinstance(mapper.box_source, ResultsFile):
        mapper.box_source.check(spec.name, {record["image_id"] for record in records})
    return records, mapper


def mapper_arguments(cfg: CfgNode, *, training: bool) -> dict[str, Any]:
    """Of the mapper, as `INPUT.BOXES` and `INPUT.RANDOM_FLIP` ask. Raises UserError where a value is out of range."""
    match_iou = cfg.INPUT.BOXES.MATCH_IOU
    if not 0 < match_iou <= 1:
        raise UserError(f"INPUT.BOXES.MATCH_IOU is {match_iou}; give more than 0, at most 1")
    return {
        "training": training,
        "flip": cfg.INPUT.RANDOM_FLIP == "horizontal",
        "jitter": box_jitter(cfg, training=training),
        "box_source": None if training else box_source(cfg),
        "match_iou": match_iou,
    }


def prediction(args: argparse.Namespace, inputs: list[Input], cfg: CfgNode) -> Task:
    """Completes the objects in the boxes of each picture."""
    from plug.prediction import BoxesTask  # with what draws, which no training needs

    return BoxesTask(args, inputs, cfg)


_JSON_AND_IMAGES = {"JSON": "json_file", "IMAGES": "images"}

METHOD = Method(
    name="PLUG",
    add_config=add_plug_config,
    architectures={"PLUG": build_plug, "VanillaSAM": build_vanilla_sam},
    truths={"amodal": (AmodalEvaluator,)},
    training_set=training_set,
    test_set=test_set,
    readers={
        "coco_amodal": Reader(coco_amodal_spec, _JSON_AND_IMAGES),
        "cocoa": Reader(cocoa_spec, _JSON_AND_IMAGES),
    },
    datasets=datasets,
    add_to_world=write_amodal,
    prediction=prediction,
)
