"""Which evaluators judge a data set under Detectron2."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from sam_common.engine.build import make_evaluators
from sam_common.errors import UserError
from sam_common.evaluation.evaluator import Evaluators
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from sam_common.structures import Instances, Vocabulary

logger = logging.getLogger(__name__)

PANOPTIC = ("coco_panoptic_seg", "ade20k_panoptic_seg")
INSTANCES = ("coco", *PANOPTIC)
SEMANTIC = ("sem_seg", "ade20k_panoptic_seg")


def build_evaluator(
    cfg: CfgNode, name: str, output_dir: Path, *, training_vocabulary: Vocabulary | None = None
) -> DatasetEvaluator:
    """Detectron2's evaluators for what the model makes and the data set has truth for, or ours.

    Args:
        cfg: `TEST.EVALUATORS` chooses: `native` is ours, for any kind of truth; `auto` and `detectron2` are
            Detectron2's, of which the panoptic one falls to ours where panopticapi is missing.
        training_vocabulary: for the seen and unseen classes of our evaluators.

    Raises:
        UserError: nothing fits.
    """
    choice = cfg.TEST.EVALUATORS
    if choice not in ("auto", "detectron2", "native"):
        raise UserError(f"TEST.EVALUATORS is {choice!r}; choose auto, detectron2 or native")
    if choice == "native":
        return NativeEvaluators(name, make_evaluators(spec_of(name), output_dir, training_vocabulary))
    kind = MetadataCatalog.get(name).get("evaluator_type", "")
    ask = cfg.MODEL.POSSAM.TEST
    evaluators: list[DatasetEvaluator] = []
    if ask.PANOPTIC_ON and kind in PANOPTIC:
        if has_panopticapi():
            evaluators.append(COCOPanopticEvaluator(name, str(output_dir)))
        else:
            logger.info("panopticapi is not installed: %s is judged by our panoptic evaluator", name)
            seen = training_vocabulary
            evaluators.append(PanopticQualityEvaluator(spec_of(name), output_dir=output_dir, training_vocabulary=seen))
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


class NativeEvaluators(Evaluators):
    """Our evaluators for a model whose `instances` are Detectron2's; those without masks are left out."""

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        super().process(inputs, [_converted(output) for output in outputs])


def _converted(output: dict[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in output.items() if name != "instances"}
    found = output.get("instances")
    if found is None or not found.has("pred_masks"):
        return others
    fields = (found.pred_masks.bool(), found.scores, found.pred_classes, found.pred_boxes.tensor)
    return {**others, "instances": Instances(found.image_size, *fields)}
