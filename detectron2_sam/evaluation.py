"""Which evaluators judge a data set under Detectron2."""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from detectron2_sam.compat import has_panopticapi
from detectron2_sam.datasets import spec_of
from sam_common.engine.build import EVALUATORS
from sam_common.errors import UserError
from sam_common.structures import Vocabulary

logger = logging.getLogger(__name__)

PANOPTIC = ("coco_panoptic_seg", "ade20k_panoptic_seg")
INSTANCES = ("coco", *PANOPTIC)
SEMANTIC = ("sem_seg", "ade20k_panoptic_seg")


def build_evaluator(
    cfg: CfgNode, name: str, output_dir: Path, *, training_vocabulary: Vocabulary | None = None
) -> DatasetEvaluator:
    """Detectron2's evaluators for what the model makes and the data set has truth for, or ours.

    Args:
        cfg: `TEST.EVALUATORS` chooses: `native` is ours; `auto` and `detectron2` are Detectron2's, of which the
            panoptic one falls to ours where panopticapi is missing.
        training_vocabulary: for the seen and unseen classes of our panoptic evaluator.

    Raises:
        UserError: nothing fits.
    """
    choice = cfg.TEST.EVALUATORS
    if choice not in ("auto", "detectron2", "native"):
        raise UserError(f"TEST.EVALUATORS is {choice!r}; choose auto, detectron2 or native")
    if choice == "native":
        return _native(name, output_dir, training_vocabulary)
    kind = MetadataCatalog.get(name).get("evaluator_type", "")
    ask = cfg.MODEL.POSSAM.TEST
    evaluators: list[DatasetEvaluator] = []
    if ask.PANOPTIC_ON and kind in PANOPTIC:
        if has_panopticapi():
            evaluators.append(COCOPanopticEvaluator(name, str(output_dir)))
        else:
            logger.info("panopticapi is not installed: %s is judged by our panoptic evaluator", name)
            evaluators.append(_native(name, output_dir, training_vocabulary))
    if ask.INSTANCE_ON and kind in INSTANCES and MetadataCatalog.get(name).get("json_file"):
        evaluators.append(COCOEvaluator(name, tasks=("bbox", "segm"), output_dir=str(output_dir)))
    if ask.SEMANTIC_ON and kind in SEMANTIC:
        evaluators.append(SemSegEvaluator(name, output_dir=str(output_dir)))
    if not evaluators:
        raise UserError(
            f"data set {name} (evaluator_type {kind or 'unset'}) has no truth for what the model makes: switch on "
            "PANOPTIC_ON, SEMANTIC_ON or INSTANCE_ON in MODEL.POSSAM.TEST"
        )
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _native(name: str, output_dir: Path, training_vocabulary: Vocabulary | None) -> DatasetEvaluator:
    spec = spec_of(name)
    if spec.evaluator not in EVALUATORS:
        raise UserError(f"there is no evaluator of ours for {spec.evaluator} (data set {name})")
    evaluator, _ = EVALUATORS[spec.evaluator]
    return evaluator(spec, output_dir=output_dir, training_vocabulary=training_vocabulary)
