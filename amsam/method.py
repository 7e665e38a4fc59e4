"""AM-SAM as the engine and the commands know it."""

from __future__ import annotations

import argparse
import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from amsam.adapter import write_adapter
from amsam.box_prompts import POLICIES
from amsam.config import (
    adapter_settings,
    add_amsam_config,
    build_amsam,
    build_bilevel_step,
    build_box_rectangle,
    build_prompted_sam,
)
from amsam.data.image_masks import IGNORE, choose_shots, folder_ids, image_masks_spec, read_labels
from amsam.data.mapper import FewShotMapper
from amsam.data.sets import datasets
from amsam.data.worms import draw_worms
from amsam.evaluation import DiceEvaluator
from amsam.structures import MaskRecord
from sam_common.boxes.config import box_jitter, box_source
from sam_common.boxes.detectors import ResultsFile
from sam_common.config import CfgNode, one_of
from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine.build_data import common_vocabulary
from sam_common.errors import UserError
from sam_common.io.inputs import Input
from sam_common.method import Method, Reader
from sam_common.prediction import Task

logger = logging.getLogger(__name__)


def training_set(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> tuple[list[MaskRecord], FewShotMapper]:
    """The shots, each with the level of the optimisation that it is for.

    Raises:
        UserError: there are too few, they show nothing, or a key or file cannot be used.
    """
    vocabulary, mapper = common_vocabulary(specs), FewShotMapper(**mapper_arguments(cfg, training=True))
    check_number_of_classes(cfg, specs[0])
    records = shots(cfg, specs)
    check_shots(records, [category.name for category in vocabulary])
    _warn_of_tested(records, [catalog.get(name) for name in cfg.DATASETS.TEST if name in catalog.names()])
    return records, mapper


def test_set(cfg: CfgNode, spec: DatasetSpec) -> tuple[Sequence[MaskRecord], FewShotMapper]:
    """Every record, with boxes of `INPUT.BOXES.SOURCE`.

    Raises:
        UserError: that is a file of boxes for other images, or a key cannot be used.
    """
    check_number_of_classes(cfg, spec)
    records, mapper = spec.load(), FewShotMapper(**mapper_arguments(cfg, training=False))
    if isinstance(mapper.box_source, ResultsFile):  # which may be for the whole folder, of which this is a part
        ids = {record["image_id"] for record in records} | folder_ids(spec.name, spec.files)
        mapper.box_source.check(spec.name, ids)
    return records, mapper


def validation(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> DatasetSpec:
    """The second half of the shots as a data set. It is evaluated after every epoch, so its records are read once."""
    check_number_of_classes(cfg, specs[0])
    load = functools.cache(lambda: [record for record in shots(cfg, specs) if record["level"] == 2])
    return replace(specs[0], name=f"{specs[0].name}_validation", load=load)


def check_number_of_classes(cfg: CfgNode, spec: DatasetSpec) -> None:
    """Raises UserError where the model is for another number of classes than the data set has."""
    known, given = cfg.MODEL.AMSAM.NUM_CLASSES, len(spec.load_vocabulary())
    if given != known:
        raise UserError(f"MODEL.AMSAM.NUM_CLASSES is {known} but data set {spec.name} has {given}; set it to {given}")


def export(cfg: CfgNode, specs: Sequence[DatasetSpec], model: nn.Module) -> None:
    """Writes `adapter.safetensors`, which `detectron2-sam predict --adapter` takes. A baseline has nothing to write."""
    if METHOD.name != cfg.MODEL.META_ARCHITECTURE:
        return
    path = Path(cfg.OUTPUT_DIR, "adapter.safetensors")
    classes = [category.name for category in common_vocabulary(specs)]
    write_adapter(path, model, settings=adapter_settings(cfg), classes=classes)
    logger.info("saved %s; use it with detectron2-sam predict --adapter", path)


def mapper_arguments(cfg: CfgNode, *, training: bool) -> dict[str, Any]:
    """Of the mapper, as `INPUT.BOXES` asks. Raises UserError where a value is unknown or out of range."""
    boxes = cfg.INPUT.BOXES
    one_of("INPUT.BOXES.SELECT", boxes.SELECT, POLICIES)
    return {
        "training": training,
        "box_source": box_source(cfg),
        "policy": boxes.SELECT,
        "classes": boxes.CLASSES,
        "jitter": box_jitter(cfg, training=training),
    }


def shots(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> list[MaskRecord]:
    """The labelled images that are learned from, each with its `level`: the first half 1, the others 2.

    Raises:
        UserError: there are fewer than were asked for.
    """
    pool = [record for spec in specs for record in spec.load()]
    seed = cfg.DATASETS.SHOTS_SEED
    chosen = choose_shots(pool, cfg.DATASETS.SHOTS, seed if seed >= 0 else None)
    return [{**record, "level": 1 + (2 * place >= len(chosen))} for place, record in enumerate(chosen)]


def check_shots(records: Sequence[MaskRecord], classes: Sequence[str]) -> None:
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


def _warn_of_tested(records: Sequence[MaskRecord], specs: Sequence[DatasetSpec]) -> None:
    learned = {os.path.realpath(record["file_name"]) for record in records}
    for spec in specs:
        both = [str(record["image_id"]) for record in spec.load() if os.path.realpath(record["file_name"]) in learned]
        if both:
            logger.warning("%s, which is tested on, holds shots that are learned from: %s", spec.name, ", ".join(both))


def prediction(args: argparse.Namespace, inputs: list[Input], cfg: CfgNode) -> Task:
    """Labels the pixels of each picture."""
    from amsam.prediction import LabelsTask  # with what draws, which no training needs

    return LabelsTask(args, inputs, cfg)


METHOD = Method(
    name="AMSAM",
    add_config=add_amsam_config,
    architectures={
        "AMSAM": build_amsam,
        "PromptedSAM": build_prompted_sam,
        "BoxRectangle": build_box_rectangle,
    },
    truths={"masks": (DiceEvaluator,)},
    training_set=training_set,
    test_set=test_set,
    validation=validation,
    export=export,
    backward=build_bilevel_step,
    readers={
        "image_masks": Reader(
            image_masks_spec,
            {"IMAGES": "images", "MASKS": "masks"},
            {
                "CLASSES": "classes",
                "NAMES": "names",
                "IMAGE_SUFFIX": "image_suffix",
                "MASK_SUFFIX": "mask_suffix",
                "MASK_THRESHOLD": "mask_threshold",
            },
        ),
    },
    datasets=datasets,
    add_to_world=draw_worms,
    prediction=prediction,
)
