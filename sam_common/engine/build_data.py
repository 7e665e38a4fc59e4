"""From a configuration to the records and mappers of its data sets."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sam_common.config import CfgNode, one_of
from sam_common.data.amodal import group_instances
from sam_common.data.amodal_mapper import AmodalMapper
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.loader import Mapper, Record
from sam_common.data.mapper import SegmentationMapper
from sam_common.detectors import build_box_source
from sam_common.errors import UserError
from sam_common.structures import Vocabulary

logger = logging.getLogger(__name__)


def build_mapper(cfg: CfgNode, truth: str, vocabulary: Vocabulary, *, training: bool) -> Mapper:
    """The mapper of data sets with this kind of truth (`DatasetSpec.evaluator`) and these classes."""
    one_of("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB",))
    one_of("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, ("horizontal", "none"))
    if truth == "amodal":
        return _amodal_mapper(cfg, training=training)
    for key in ("IMAGE_SIZE", "MIN_SIZE_TEST", "MAX_SIZE_TEST"):
        if cfg.INPUT[key] < 1:
            raise UserError(f"INPUT.{key} is {cfg.INPUT[key]}; give at least 1 pixel")
    return SegmentationMapper(
        vocabulary,
        training=training,
        image_size=cfg.INPUT.IMAGE_SIZE,
        min_scale=cfg.INPUT.MIN_SCALE,
        max_scale=cfg.INPUT.MAX_SCALE,
        flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
        color=cfg.INPUT.COLOR_AUG_SSD,
        min_size_test=cfg.INPUT.MIN_SIZE_TEST,
        max_size_test=cfg.INPUT.MAX_SIZE_TEST,
    )


def _amodal_mapper(cfg: CfgNode, *, training: bool) -> Mapper:
    boxes = cfg.INPUT.BOXES
    for key in ("JITTER_TRAIN", "JITTER_TEST"):
        if not 0 <= boxes[key] < 0.5:
            raise UserError(f"INPUT.BOXES.{key} is {boxes[key]}; give a part of a box's side, from 0 to less than 0.5")
    if not 0 < boxes.MATCH_IOU <= 1:
        raise UserError(f"INPUT.BOXES.MATCH_IOU is {boxes.MATCH_IOU}; give more than 0, at most 1")
    source = None if training else build_box_source(boxes.SOURCE, score_threshold=boxes.SCORE_THRESHOLD)
    return AmodalMapper(
        training=training,
        flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
        jitter=boxes.JITTER_TRAIN if training else boxes.JITTER_TEST,
        box_source=source,
        match_iou=boxes.MATCH_IOU,
    )


def training_set(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> tuple[list[Record], Mapper]:
    """The records of all data sets that are trained on, and what makes model inputs of them.

    Amodal data sets are trained in groups of at most `INPUT.INSTANCES_PER_IMAGE` objects of one image.

    Raises:
        UserError: there are no data sets, or they do not share one kind of truth or one vocabulary.
    """
    if not specs:
        raise UserError("DATASETS.TRAIN is empty; name a data set, or give --eval-only")
    amodal = [spec.evaluator == "amodal" for spec in specs]
    if all(amodal):  # classes are not learned, so they may differ
        if cfg.INPUT.INSTANCES_PER_IMAGE < 1:
            raise UserError(f"INPUT.INSTANCES_PER_IMAGE is {cfg.INPUT.INSTANCES_PER_IMAGE}; give at least 1")
        groups = group_instances([record for spec in specs for record in spec.load()], cfg.INPUT.INSTANCES_PER_IMAGE)
        _tell_epochs(groups, cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH)
        return groups, build_mapper(cfg, "amodal", (), training=True)
    if any(amodal):
        raise UserError(f"DATASETS.TRAIN: {specs[amodal.index(True)].name} is amodal, others are not; choose one kind")
    vocabularies = [spec.load_vocabulary() for spec in specs]
    for spec, vocabulary in zip(specs, vocabularies, strict=True):
        if vocabulary != vocabularies[0]:
            raise UserError(f"DATASETS.TRAIN: {spec.name} has other classes than {specs[0].name}; train on one of them")
    records = [record for spec in specs for record in spec.load()]
    return records, build_mapper(cfg, specs[0].evaluator, vocabularies[0], training=True)


def _tell_epochs(groups: Sequence[Record], max_iter: int, batch_size: int) -> None:
    objects = sum(len(group["annotations"]) for group in groups)
    if groups:
        logger.info(
            "%d objects in %d groups: %d iterations of %d groups are %.1f epochs, %.1f objects each in the mean",
            *(objects, len(groups), max_iter, batch_size, max_iter * batch_size / len(groups)),
            batch_size * objects / len(groups),
        )


def test_set(cfg: CfgNode, spec: DatasetSpec) -> tuple[list[Record], Mapper]:
    """The records of a data set to test on, and what makes model inputs of them."""
    return spec.load(), build_mapper(cfg, spec.evaluator, spec.load_vocabulary(), training=False)
