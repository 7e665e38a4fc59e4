"""From a configuration to evaluations: which evaluators judge a data set, after a training or on its way."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from sam_common.config import UNTRAINED, CfgNode
from sam_common.contracts import as_model
from sam_common.data.coco_json import missing
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.loader import mapped
from sam_common.engine.build_data import method_of_spec, test_set
from sam_common.engine.evaluation import evaluate
from sam_common.engine.optimizer import trainable_parameters
from sam_common.engine.trainer import BEST
from sam_common.errors import UserError
from sam_common.evaluation.evaluator import Evaluator, Evaluators, Results, served
from sam_common.structures import Vocabulary


def checkpoint_to_evaluate(cfg: CfgNode, model: nn.Module, last: Path | None) -> str:
    """The file that an evaluation loads, or `UNTRAINED`, by choice or where the model has nothing to train.

    Args:
        last: the last checkpoint of the run, where one is asked for and there is one; it goes before `MODEL.WEIGHTS`.

    Raises:
        UserError: no weights are given for a model that has something to train.
    """
    path = str(last or cfg.MODEL.WEIGHTS)
    if not path and trainable_parameters(model):
        raise UserError(
            "MODEL.WEIGHTS is empty: give the model_final.pth of a training run, or `random` to evaluate an untrained "
            f"{cfg.MODEL.META_ARCHITECTURE}"
        )
    return path or UNTRAINED


def checkpoint_facts(cfg: CfgNode, checkpoint: str) -> dict[str, Any]:
    """What a report says of the weights: where they are from, whether they were given or are a run's last, the seed."""
    known = {cfg.MODEL.WEIGHTS: "given path", UNTRAINED: "none"}
    choice = known.get(checkpoint, "best of the validation" if Path(checkpoint).stem == BEST else "last")
    name = "untrained" if checkpoint == UNTRAINED else checkpoint
    return {"checkpoint": name, "checkpoint_choice": choice, "seed": cfg.SEED}


def build_validation(
    cfg: CfgNode, specs: Sequence[DatasetSpec]
) -> Callable[[nn.Module, AbstractContextManager, Callable[[], bool]], dict[str, Results] | None] | None:
    """What judges a model on the held-out part of the training data, without a report; None where nothing is held out.

    Args:
        specs: of `DATASETS.TRAIN`.

    Returns:
        (model, precision to compute in, stopped) -> results of each data set, or None when `stopped()` ended it. The
        inputs are made once, here: each would be asked for after every epoch, and its boxes of a detector with it.

    Raises:
        UserError: a file of the held-out part cannot be read.
    """
    spec = method_of_spec(specs[0]).validation(cfg, specs) if specs else None
    if spec is None:
        return None
    records, mapper = test_set(cfg, spec)
    batches = [[mapped(mapper, record, 0)] for record in records]
    folder = Path(cfg.OUTPUT_DIR) / "inference" / spec.name
    evaluators = Evaluators(spec.name, make_evaluators(spec, folder, None))

    def validate(
        model: nn.Module, autocast: AbstractContextManager, stopped: Callable[[], bool]
    ) -> dict[str, Results] | None:
        results = evaluate(as_model(model), batches, evaluators, name=spec.name, autocast=autocast, stopped=stopped)
        return None if results is None else {spec.name: results}

    return validate


def check_judged(specs: Sequence[DatasetSpec], made: AbstractSet[str]) -> None:
    """Finds what would go unjudged, before the inference or the training before it begins.

    Args:
        specs: of `DATASETS.TEST`.
        made: the keys of what the model makes of an image.

    Raises:
        UserError: a data set serves nothing that the model makes, something that it makes is served by none, or an
            annotation is not there.
    """
    used = [served(spec.name, method_of_spec(spec).truths[spec.truth], made) for spec in specs]
    unjudged = made - {key for evaluators in used for evaluator in evaluators for key in evaluator.judges}
    if specs and unjudged:
        raise UserError(
            f"the model makes {', '.join(sorted(unjudged))}, of which {', '.join(spec.name for spec in specs)} has no "
            "truth: switch that off in the configuration, or name a data set that has it in DATASETS.TEST"
        )
    for spec, evaluators in zip(specs, used, strict=True):
        _check_files(spec)
        for evaluator in evaluators:
            if evaluator.truth in spec.beside:
                _check_files(spec.beside[evaluator.truth], f"; or do not ask for {evaluator.judges[0]} of {spec.name}")


def _check_files(spec: DatasetSpec, otherwise: str = "") -> None:
    """Raises UserError where an annotation of a data set is not there; `otherwise` says what else can be done."""
    for role in ("json", "panoptic", "labels", "masks"):
        if role in spec.files and not os.path.exists(spec.files[role]):
            raise UserError(missing(spec.name, "annotation", spec.files[role]) + otherwise)


def make_evaluators(
    spec: DatasetSpec,
    output_dir: Path,
    training_vocabulary: Vocabulary | None,
    made: AbstractSet[str] | None = None,
) -> list[Evaluator]:
    """The evaluators that the truth of a data set serves; they write into `output_dir`.

    Args:
        training_vocabulary: the classes that the model was trained on, where it is known.
        made: the keys of what the model makes of an image, where it is known: only these are judged.

    Raises:
        UserError: no evaluator is for this kind of truth or for what is made, or the data set cannot be read.
    """
    makers: Sequence[type[Evaluator]] = method_of_spec(spec).truths[spec.truth]
    if made is not None:
        makers = served(spec.name, makers, made)
    return [make(spec, output_dir=output_dir, training_vocabulary=training_vocabulary) for make in makers]
