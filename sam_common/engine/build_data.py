"""From a configuration to the records and mappers of its data sets."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import replace

from amsam.box_prompts import POLICIES
from amsam.data.image_masks import IGNORE, choose_shots, folder_ids, read_labels
from amsam.data.mapper import FewShotMapper
from plug.data.annotations import group_instances
from plug.data.mapper import AmodalMapper
from sam_common.boxes.detectors import ResultsFile, build_box_source
from sam_common.config import CfgNode, one_of
from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.loader import Mapper, Record
from sam_common.data.mapper import SegmentationMapper
from sam_common.errors import UserError
from sam_common.structures import Vocabulary

logger = logging.getLogger(__name__)


def build_mapper(cfg: CfgNode, truth: str, vocabulary: Vocabulary, *, training: bool) -> Mapper:
    """The mapper of data sets with this kind of truth (`DatasetSpec.evaluator`) and these classes."""
    one_of("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB",))
    one_of("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, ("horizontal", "none"))
    if truth == "amodal":
        return _amodal_mapper(cfg, training=training)
    if truth == "masks":
        return _few_shot_mapper(cfg, training=training)
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


def _few_shot_mapper(cfg: CfgNode, *, training: bool) -> Mapper:
    boxes = cfg.INPUT.BOXES
    one_of("INPUT.BOXES.SELECT", boxes.SELECT, POLICIES)
    return FewShotMapper(
        training=training,
        box_source=build_box_source(boxes.SOURCE, score_threshold=boxes.SCORE_THRESHOLD),
        policy=boxes.SELECT,
        classes=boxes.CLASSES,
        jitter=_jitter(cfg, training=training),
    )


def _jitter(cfg: CfgNode, *, training: bool) -> float:
    for key in ("JITTER_TRAIN", "JITTER_TEST"):
        if not 0 <= cfg.INPUT.BOXES[key] < 0.5:
            raise UserError(
                f"INPUT.BOXES.{key} is {cfg.INPUT.BOXES[key]}; give a part of a box's side, from 0 to less than 0.5"
            )
    return cfg.INPUT.BOXES.JITTER_TRAIN if training else cfg.INPUT.BOXES.JITTER_TEST


def _amodal_mapper(cfg: CfgNode, *, training: bool) -> Mapper:
    boxes = cfg.INPUT.BOXES
    if not 0 < boxes.MATCH_IOU <= 1:
        raise UserError(f"INPUT.BOXES.MATCH_IOU is {boxes.MATCH_IOU}; give more than 0, at most 1")
    source = None if training else build_box_source(boxes.SOURCE, score_threshold=boxes.SCORE_THRESHOLD)
    return AmodalMapper(
        training=training,
        flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
        jitter=_jitter(cfg, training=training),
        box_source=source,
        match_iou=boxes.MATCH_IOU,
    )


def training_set(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> tuple[list[Record], Mapper]:
    """The records of all data sets that are trained on, and what makes model inputs of them.

    Amodal data sets are trained in groups of at most `INPUT.INSTANCES_PER_IMAGE` objects of one image, data sets of
    images with masks by `DATASETS.SHOTS` of their images, in two halves (see `shots`).

    Raises:
        UserError: there are no data sets, or they do not share one kind of truth or one vocabulary; as `check_shots`.
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
    for spec in specs:
        if spec.evaluator != specs[0].evaluator and {spec.evaluator, specs[0].evaluator} & {"amodal", "masks"}:
            raise UserError(
                f"DATASETS.TRAIN: {specs[0].name} has {specs[0].evaluator} truth, {spec.name} {spec.evaluator}; "
                "choose one kind"
            )
    vocabularies = [spec.load_vocabulary() for spec in specs]
    for spec, vocabulary in zip(specs, vocabularies, strict=True):
        if vocabulary != vocabularies[0]:
            raise UserError(f"DATASETS.TRAIN: {spec.name} has other classes than {specs[0].name}; train on one of them")
    truth = specs[0].evaluator
    mapper = build_mapper(cfg, truth, vocabularies[0], training=True)
    if truth == "masks":
        records = shots(cfg, specs)
        check_shots(records, [category.name for category in vocabularies[0]])
        _warn_of_tested(records, [catalog.get(name) for name in cfg.DATASETS.TEST if name in catalog.names()])
        return records, mapper
    return [record for spec in specs for record in spec.load()], mapper


def shots(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> list[Record]:
    """The labelled images that are learned from, each with its `level`: the first half 1, the others 2.

    Raises:
        UserError: there are fewer than were asked for.
    """
    pool = [record for spec in specs for record in spec.load()]
    seed = cfg.DATASETS.SHOTS_SEED
    chosen = choose_shots(pool, cfg.DATASETS.SHOTS, seed if seed >= 0 else None)
    return [record | {"level": 1 + (2 * place >= len(chosen))} for place, record in enumerate(chosen)]


def check_shots(records: Sequence[Record], classes: Sequence[str]) -> None:
    """Warns of shots that show nothing, and of classes that no shot of a half shows.

    Raises:
        UserError: a mask cannot be read or has wrong values, or a half of the shots shows nothing at all.
    """
    shown = {record["image_id"]: set(read_labels(record).unique().tolist()) - {0, IGNORE} for record in records}
    empty = ", ".join(str(name) for name, labels in shown.items() if not labels)
    if empty:
        logger.warning("shots whose masks show nothing: %s", empty)
    for level, use in ((1, "teaches the weights"), (2, "teaches the prompt and chooses the weights")):
        half = [record for record in records if record["level"] == level]
        seen = set().union(*(shown[record["image_id"]] for record in half))
        names = ", ".join(str(record["image_id"]) for record in half)
        if not seen:
            raise UserError(
                f"half {level} of the shots, which {use}, shows nothing: the masks of {names} are all background; "
                "draw others with DATASETS.SHOTS_SEED, or take more with DATASETS.SHOTS"
            )
        missing = [name for label, name in enumerate(classes, start=1) if label not in seen]
        if missing:
            logger.warning(
                "half %d of the shots, which %s, does not show %s (%s)", level, use, ", ".join(missing), names
            )


def _warn_of_tested(records: Sequence[Record], specs: Sequence[DatasetSpec]) -> None:
    learned = {os.path.realpath(record["file_name"]) for record in records}
    for spec in specs:
        both = [str(record["image_id"]) for record in spec.load() if os.path.realpath(record["file_name"]) in learned]
        if both:
            logger.warning("%s, which is tested on, holds shots that are learned from: %s", spec.name, ", ".join(both))


def validation_spec(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> DatasetSpec | None:
    """The second half of the shots as a data set; None for data sets that are trained on as a whole.

    It is evaluated after every epoch, so its records are read once.
    """
    if not specs or specs[0].evaluator != "masks":
        return None
    load = functools.cache(lambda: [record for record in shots(cfg, specs) if record["level"] == 2])
    return replace(specs[0], name=f"{specs[0].name}_validation", load=load)


def _tell_epochs(groups: Sequence[Record], max_iter: int, batch_size: int) -> None:
    objects = sum(len(group["annotations"]) for group in groups)
    if groups:
        logger.info(
            "%d objects in %d groups: %d iterations of %d groups are %.1f epochs, %.1f objects each in the mean",
            *(objects, len(groups), max_iter, batch_size, max_iter * batch_size / len(groups)),
            batch_size * objects / len(groups),
        )


def test_set(cfg: CfgNode, spec: DatasetSpec) -> tuple[list[Record], Mapper]:
    """The records of a data set to test on, and what makes model inputs of them.

    Raises:
        UserError: `INPUT.BOXES.SOURCE` is a file of boxes for other images.
    """
    records, mapper = spec.load(), build_mapper(cfg, spec.evaluator, spec.load_vocabulary(), training=False)
    if isinstance(mapper, AmodalMapper | FewShotMapper) and isinstance(mapper.box_source, ResultsFile):
        known = {record["image_id"] for record in records}
        if spec.evaluator == "masks":  # the file may be for the whole folder, of which this is a part
            known |= folder_ids(spec.name, spec.files)
        mapper.box_source.check(spec.name, known)
    return records, mapper
