"""Which evaluators judge a data set under Detectron2, and ours as Detectron2's `DatasetEvaluator`s."""

from __future__ import annotations

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from detectron2_sam.plugin.datasets import spec_of
from detectron2_sam.plugin.stock_evaluation import rules_of, stock_evaluators
from plug.data.mapper import AmodalMapper
from possam.config import build_inference
from sam_common.boxes.boxes import Boxes
from sam_common.config import one_of
from sam_common.engine.build_evaluation import make_evaluators
from sam_common.evaluation.evaluator import Evaluators
from sam_common.structures import Instances, Vocabulary

CHOICES = ("auto", "detectron2")
"""What `TEST.EVALUATORS` may be."""


class SegmentationEvaluator(Evaluators, DatasetEvaluator):
    """PQ, AP of masks and boxes, and mIoU, as far as a data set has the truth and the model makes the outputs.

    Results are `{"panoptic_seg": …, "segm": …, "bbox": …, "sem_seg": …}`. An output that the data set has no truth for
    is not judged; instances without masks are skipped.

    Args:
        dataset_name: a data set in Detectron2's catalogs.
        output_dir: for the result files; several machines must share it.
        outputs: the keys of what the model makes; by default whatever it turns out to make.
        training_vocabulary: the classes that the model was trained on, for the means of seen and unseen classes.

    Raises:
        UserError: the data set is unknown, cannot be read, or has no truth for any of the outputs.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | os.PathLike,
        *,
        outputs: AbstractSet[str] | None = None,
        training_vocabulary: Vocabulary | None = None,
    ) -> None:
        evaluators = make_evaluators(spec_of(dataset_name), Path(output_dir), training_vocabulary, outputs)
        super().__init__(dataset_name, evaluators)

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        super().process(inputs, [_converted(output) for output in outputs])


class FewShotEvaluator(SegmentationEvaluator):
    """Dice and IoU of `few_shot`, on a data set of images with masks: `{"few_shot": …}`."""


class AmodalEvaluator(SegmentationEvaluator):
    """mIoU of whole and of hidden parts, on an amodal data set: `{"amodal": …}`.

    It judges PLUG, and `AmodalDetector`, which finds the objects itself: where an input does not say of which objects
    its boxes are, the boxes of the output's `instances` are matched with the objects as those of `INPUT.BOXES.SOURCE`.

    Args:
        match_iou: the overlap of two boxes from which one is of the other's object.
    """

    def __init__(self, dataset_name: str, output_dir: str | os.PathLike, *, match_iou: float = 0.5) -> None:
        super().__init__(dataset_name, output_dir)
        self._match = AmodalMapper(training=False, match_iou=match_iou).match
        self._records = {record["image_id"]: record for record in spec_of(dataset_name).load()}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        super().process([self._matched(*pair) for pair in zip(inputs, outputs, strict=True)], outputs)

    def _matched(self, entry: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        if "annotation_ids" in entry:
            return entry
        boxes = Boxes(output["instances"].pred_boxes.tensor.cpu(), output["instances"].scores.cpu())
        return {**entry, **self._match(self._records[entry["image_id"]], boxes)}


def build_evaluator(
    cfg: CfgNode, name: str, output_dir: Path, *, training_vocabulary: Vocabulary | None = None
) -> DatasetEvaluator:
    """What judges all that the model makes and the data set has truth for.

    Args:
        cfg: `TEST.EVALUATORS` chooses: `auto` is ours, so that a command gives the same table whatever is installed;
            `detectron2` is Detectron2's, which has none for amodal data sets and those of images with masks.
        training_vocabulary: for the seen and unseen classes.

    Raises:
        UserError: nothing fits, or what was asked for cannot be judged.
    """
    one_of("TEST.EVALUATORS", cfg.TEST.EVALUATORS, CHOICES)
    truth = spec_of(name).truth
    if truth == "amodal":
        return AmodalEvaluator(name, output_dir, match_iou=cfg.INPUT.BOXES.MATCH_IOU)
    if truth == "masks":
        return FewShotEvaluator(name, output_dir)
    outputs = build_inference(cfg).outputs
    if cfg.TEST.EVALUATORS == "auto":
        return SegmentationEvaluator(name, output_dir, outputs=outputs, training_vocabulary=training_vocabulary)
    return DatasetEvaluators(stock_evaluators(name, output_dir, outputs, training_vocabulary))


def evaluator_facts(evaluator: DatasetEvaluator | None, name: str) -> dict[str, Any]:
    """What a report says of what judged data set `name`, `images` and `rules`; all ranks must call it."""
    if isinstance(evaluator, SegmentationEvaluator):
        return evaluator.facts()
    parts = evaluator._evaluators if isinstance(evaluator, DatasetEvaluators) else [evaluator]
    rules = {type(part).__name__: rules_of(part) for part in parts if part is not None}
    return {"images": len(DatasetCatalog.get(name)), "rules": rules}


def _converted(output: dict[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in output.items() if name != "instances"}
    found = output.get("instances")
    if found is None or not found.has("pred_masks"):
        return others
    fields = (found.pred_masks.bool(), found.scores, found.pred_classes, found.pred_boxes.tensor)
    return {**others, "instances": Instances(found.image_size, *fields)}
