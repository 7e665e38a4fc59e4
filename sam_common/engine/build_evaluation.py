"""From a configuration to evaluations: which evaluators judge a data set, after a training or on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import nn

from sam_common.config import UNTRAINED, CfgNode
from sam_common.contracts import as_model
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.loader import mapped
from sam_common.engine.build_data import method_of_spec, test_set
from sam_common.engine.evaluation import evaluate
from sam_common.engine.optimizer import trainable_parameters
from sam_common.engine.trainer import BEST
from sam_common.errors import UserError
from sam_common.evaluation.evaluator import Evaluator, Evaluators, Results
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


def make_evaluators(spec: DatasetSpec, output_dir: Path, training_vocabulary: Vocabulary | None) -> list[Evaluator]:
    """All evaluators that the truth of a data set serves; they write into `output_dir`.

    Args:
        training_vocabulary: the classes that the model was trained on, where it is known.

    Raises:
        UserError: no evaluator is for this kind of truth, or the data set cannot be read.
    """
    makers = method_of_spec(spec).truths[spec.truth]
    return [make(spec, output_dir=output_dir, training_vocabulary=training_vocabulary) for make in makers]
