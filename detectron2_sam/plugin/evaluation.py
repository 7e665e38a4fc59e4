"""Which evaluators judge a data set under Detectron2."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detectron2
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
)

from detectron2_sam.plugin.compat import has_panopticapi
from detectron2_sam.plugin.datasets import spec_of
from plug.data.mapper import AmodalMapper
from sam_common.boxes.boxes import Boxes
from sam_common.engine.build_evaluation import make_evaluators
from sam_common.errors import UserError
from sam_common.evaluation.evaluator import Evaluator, Evaluators
from sam_common.evaluation.mean_iou import MeanIoUEvaluator
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from sam_common.structures import Instances, Vocabulary

logger = logging.getLogger(__name__)

PANOPTIC = ("coco_panoptic_seg", "ade20k_panoptic_seg")
INSTANCES = ("coco", *PANOPTIC)
SEMANTIC = ("sem_seg", "ade20k_panoptic_seg")
OURS = ("amodal", "masks")

CHOICES = ("auto", "detectron2", "native")
"""What `TEST.EVALUATORS` may be."""


def build_evaluator(
    cfg: CfgNode, name: str, output_dir: Path, *, training_vocabulary: Vocabulary | None = None
) -> DatasetEvaluator:
    """Detectron2's evaluators for what the model makes and the data set has truth for, or ours.

    Args:
        cfg: `TEST.EVALUATORS` chooses: `native` is ours, for any kind of truth; `auto` and `detectron2` are
            Detectron2's, of which the panoptic one falls to ours where panopticapi is missing. Detectron2 has none for
            amodal data sets and those of images with masks: those are ours.
        training_vocabulary: for the seen and unseen classes of our evaluators.

    Raises:
        UserError: nothing fits.
    """
    choice = cfg.TEST.EVALUATORS
    if choice not in CHOICES:
        raise UserError(f"TEST.EVALUATORS is {choice!r}; choose {', '.join(CHOICES)}")
    kind = MetadataCatalog.get(name).get("evaluator_type", "")
    if kind == "amodal":
        ours = make_evaluators(spec_of(name), output_dir, training_vocabulary)
        return AmodalEvaluators(name, ours, match_iou=cfg.INPUT.BOXES.MATCH_IOU)
    if choice == "native" or kind in OURS:
        return NativeEvaluators(name, make_evaluators(spec_of(name), output_dir, training_vocabulary))
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


def evaluator_facts(evaluator: DatasetEvaluator | None, name: str) -> dict[str, Any]:
    """What a report says of what judged data set `name`, `images` and `rules`; all ranks must call it."""
    if isinstance(evaluator, NativeEvaluators):
        return evaluator.facts()
    parts = evaluator._evaluators if isinstance(evaluator, DatasetEvaluators) else [evaluator]
    rules = {type(part).__name__: _rules(part) for part in parts if part is not None}
    return {"images": len(DatasetCatalog.get(name)), "rules": rules}


def _rules(evaluator: DatasetEvaluator) -> dict[str, str]:
    if isinstance(evaluator, PanopticQualityEvaluator):
        return dict(evaluator.rules)
    package = type(evaluator).__module__.partition(".")[0]
    library = {"library": f"{package} {detectron2.__version__}" if package == "detectron2" else package}
    if not isinstance(evaluator, SemSegEvaluator):
        return library
    # Both rules of mIoU come as version 0.6; the newer one came together with boundaries.
    rule = "mIoU" if hasattr(SemSegEvaluator, "_mask_to_boundary") else "mIoU_union"
    return {**library, "mIoU": MeanIoUEvaluator.rules[rule]}


class NativeEvaluators(Evaluators):
    """Our evaluators for a model whose `instances` are Detectron2's; those without masks are left out."""

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        super().process(inputs, [_converted(output) for output in outputs])


class AmodalEvaluators(NativeEvaluators):
    """The same, also for a model that finds the objects itself, such as `AmodalDetector`.

    An input that does not say of which objects the boxes are is one of Detectron2's own mapper: the boxes of its
    `instances` are then matched with the objects, as those of `INPUT.BOXES.SOURCE` are.

    Args:
        name: of an amodal data set.
        evaluators: see `Evaluators`.
        match_iou: the overlap of boxes from which one is of an object.
    """

    def __init__(self, name: str, evaluators: Sequence[Evaluator], *, match_iou: float) -> None:
        super().__init__(name, evaluators)
        self._match = AmodalMapper(training=False, match_iou=match_iou).match
        self._records = {record["image_id"]: record for record in spec_of(name).load()}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        super().process([self._matched(*pair) for pair in zip(inputs, outputs, strict=True)], outputs)

    def _matched(self, entry: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        if "annotation_ids" in entry:
            return entry
        boxes = Boxes(output["instances"].pred_boxes.tensor.cpu(), output["instances"].scores.cpu())
        return {**entry, **self._match(self._records[entry["image_id"]], boxes)}


def _converted(output: dict[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in output.items() if name != "instances"}
    found = output.get("instances")
    if found is None or not found.has("pred_masks"):
        return others
    fields = (found.pred_masks.bool(), found.scores, found.pred_classes, found.pred_boxes.tensor)
    return {**others, "instances": Instances(found.image_size, *fields)}
