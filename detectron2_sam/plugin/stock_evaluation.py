"""Detectron2's own evaluators, for all that PosSAM makes and whatever indices the classes have."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import detectron2
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import COCOEvaluator, COCOPanopticEvaluator, DatasetEvaluator, SemSegEvaluator
from torch import Tensor

from detectron2_sam.plugin.compat import has_panopticapi, panoptic_statistics
from detectron2_sam.plugin.datasets import spec_of
from sam_common.engine.build_data import method_of_spec
from sam_common.errors import UserError
from sam_common.evaluation.class_groups import GROUPS, class_groups
from sam_common.evaluation.evaluator import served
from sam_common.evaluation.mean_iou import RULES
from sam_common.evaluation.panoptic_quality import METRICS
from sam_common.evaluation.truth import records_to_judge
from sam_common.structures import Vocabulary


class PanopticEvaluator(COCOPanopticEvaluator):
    """Detectron2's, with the means of seen and unseen classes, as panopticapi averages them."""

    def __init__(self, name: str, output_dir: Path, training_vocabulary: Vocabulary | None) -> None:
        if not has_panopticapi():
            raise UserError(
                "TEST.EVALUATORS is detectron2, whose panoptic evaluator needs panopticapi: pip install --no-deps "
                "git+https://github.com/cocodataset/panopticapi.git, or choose auto"
            )
        super().__init__(name, str(output_dir))
        content = json.loads(Path(self._metadata.panoptic_json).read_bytes())
        segments = (segment for entry in content["annotations"] for segment in entry["segments_info"])
        _require_keys(self._metadata.panoptic_json, segments, ("iscrowd",))
        vocabulary = spec_of(name).load_vocabulary()
        groups = class_groups(vocabulary, training_vocabulary)
        self._groups = {
            group: [category.id for category, member in zip(vocabulary, groups[group].tolist(), strict=True) if member]
            for group in ("seen", "unseen")
            if group in groups
        }

    def evaluate(self) -> dict[str, Any] | None:
        with panoptic_statistics() as statistics:
            results = super().evaluate()
        if results is not None:
            for group, ids in self._groups.items():
                occurring: dict[int, dict] = {
                    id: {} for id in ids if any(vars(statistics[0][id])[key] for key in ("tp", "fp", "fn"))
                }
                if occurring:
                    means, _ = statistics[0].pq_average(occurring, isthing=None)
                    of_group = {f"{key}{GROUPS[group]}": 100 * means[key.lower()] for key in METRICS}
                    results["panoptic_seg"] |= {**of_group, f"n{GROUPS[group]}": float(means["n"])}
        return results


class InstanceEvaluator(COCOEvaluator):
    """Detectron2's, on the JSON of instances: its images are found by their files, its classes by their ids.

    COCOEvaluator takes the model's classes for those of the JSON, and the ids of the images for its own; of a panoptic
    data set neither need be so (COCO has 133 classes, 80 of them in the JSON).
    """

    def __init__(self, name: str, output_dir: Path) -> None:
        spec = spec_of(name)
        instances = spec if spec.truth == "instance" else spec.beside["instance"]
        records_to_judge(spec, "instance")  # refuses a JSON that lacks an image or has other classes
        super().__init__(name, tasks=("bbox", "segm"), output_dir=str(output_dir))
        keys = ("area", "bbox", "iscrowd", "segmentation")
        _require_keys(MetadataCatalog.get(name).json_file, self._coco_api.anns.values(), keys)
        classes, vocabulary = instances.load_vocabulary(), spec.load_vocabulary()
        index_of = {category.id: index for index, category in enumerate(vocabulary)}
        self._index_of = {index_of[category.id]: index for index, category in enumerate(classes)}
        self._image_ids = {os.path.abspath(record["file_name"]): record["image_id"] for record in instances.load()}
        self._metadata = Metadata(
            name=name,
            json_file=MetadataCatalog.get(name).json_file,
            thing_classes=[category.name for category in classes],
            thing_dataset_id_to_contiguous_id={category.id: index for index, category in enumerate(classes)},
        )

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        known = [{**entry, "image_id": self._image_ids[os.path.abspath(entry["file_name"])]} for entry in inputs]
        super().process(known, [{**output, "instances": self._reindexed(output["instances"])} for output in outputs])

    def _reindexed(self, found: Any) -> Any:
        """The instances of the JSON's classes, by its indices."""
        found = found[[index in self._index_of for index in found.pred_classes.tolist()]]
        found.pred_classes = found.pred_classes.new_tensor([self._index_of[i] for i in found.pred_classes.tolist()])
        return found


class SemanticEvaluator(SemSegEvaluator):
    """Detectron2's, which also takes `sem_seg_labels` [H, W] in the place of scores."""

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        super().process(inputs, [{"sem_seg": output.get("sem_seg", _Labels(output))} for output in outputs])


class _Labels:
    """The best class of each pixel, to an evaluator that looks for it among scores."""

    def __init__(self, output: dict[str, Any]) -> None:
        self._output = output

    def argmax(self, dim: int) -> Tensor:
        return self._output["sem_seg_labels"]


def _require_keys(path: str, entries: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Finds what Detectron2's evaluators would miss when the inference is over.

    Raises:
        UserError: an entry of the file lacks one of the keys.
    """
    for entry in entries:
        if lacking := [key for key in keys if key not in entry]:
            raise UserError(
                f"{path}, entry {entry.get('id')}: no {', '.join(lacking)}, which TEST.EVALUATORS detectron2 needs; "
                "choose auto, which does without, or add it"
            )


def stock_evaluators(
    name: str, output_dir: Path, outputs: AbstractSet[str], training_vocabulary: Vocabulary | None
) -> list[DatasetEvaluator]:
    """Those of Detectron2 for each of `outputs`, the keys of what the model makes, that the data set has truth for.

    Raises:
        UserError: there is none, or the data set has the truth in a form that Detectron2's evaluator cannot read.
    """
    spec = spec_of(name)
    asked = {evaluator.judges[0] for evaluator in served(name, method_of_spec(spec).truths[spec.truth], outputs)}
    needed = {"instances": ("instance", "a json_file of instances"), "sem_seg": ("semantic", "label maps")}
    for output, (truth, file) in needed.items():
        if output in asked and truth not in {spec.truth, *spec.beside}:
            raise UserError(
                f"TEST.EVALUATORS is detectron2, whose evaluator of {output} needs {file}, which {name} has not: "
                "choose auto, which takes this truth from the segments"
            )
    evaluators: list[DatasetEvaluator] = []
    if "panoptic_seg" in asked:
        evaluators.append(PanopticEvaluator(name, output_dir, training_vocabulary))
    if "instances" in asked:
        evaluators.append(InstanceEvaluator(name, output_dir))
    if "sem_seg" in asked:
        evaluators.append(SemanticEvaluator(name, output_dir=str(output_dir)))
    return evaluators


def rules_of(evaluator: DatasetEvaluator) -> dict[str, str]:
    """What a report says of an evaluator that is not ours."""
    package = next(c.__module__ for c in type(evaluator).__mro__ if not c.__module__.startswith(__package__ or ""))
    name = package.partition(".")[0]
    library = {"library": f"{name} {detectron2.__version__}" if name == "detectron2" else name}
    if not isinstance(evaluator, SemSegEvaluator):
        return library
    # Both rules of mIoU come as version 0.6; the newer one came together with boundaries.
    rule = "mIoU" if hasattr(SemSegEvaluator, "_mask_to_boundary") else "mIoU_union"
    return {**library, "mIoU": RULES[rule]}
