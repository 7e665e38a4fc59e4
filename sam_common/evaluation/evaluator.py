"""What an evaluator is, under either engine, and several of them on one data set."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from torch import Tensor

from sam_common.contracts import ImageRecord
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.errors import UserError
from sam_common.evaluation.truth import records_to_judge
from sam_common.layers.processes import gather
from sam_common.structures import Vocabulary

Results = dict[str, dict[str, float]]


class Evaluator(ABC):
    """Compares one thing that a model makes with the records of a data set; every rank feeds its own images.

    Args:
        spec: the data set; its records and vocabulary are loaded here.
        output_dir: for its result files; made when needed, several machines must share it.
        training_vocabulary: the classes the model was trained on; without it nothing is said of seen and unseen ones.

    Attributes:
        judges: the entries of a model's outputs of which it needs one, such as `sem_seg`; the first is its name.
        truth: the kind that it prefers where a data set has several (`DatasetSpec.beside`).
    """

    judges: tuple[str, ...]
    truth: str = ""

    def __init__(
        self, spec: DatasetSpec, *, output_dir: str | os.PathLike, training_vocabulary: Vocabulary | None = None
    ) -> None:
        self.spec, self.output_dir = spec, Path(output_dir)
        self.vocabulary, self.training_vocabulary = spec.load_vocabulary(), training_vocabulary
        self.records = records_to_judge(spec, self.truth)
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen so far."""
        self._images: list[int | str] = []

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Takes in a batch: the model's inputs and, in the same order, its outputs.

        Raises:
            UserError: an annotation cannot be read or contradicts its record, or a result cannot be written.
        """
        for item, output in zip(inputs, outputs, strict=True):
            self.judge(self.records[item["image_id"]], item, output)
            self._images.append(item["image_id"])

    def images(self) -> list[int | str]:
        """The ids of the images judged, of all ranks; every rank must call it."""
        return [image for part in gather(self._images) for image in part]

    @property
    @abstractmethod
    def rules(self) -> Mapping[str, str]:
        """What somebody must know to compare its numbers with others'; reports quote it."""

    @abstractmethod
    def judge(self, record: Any, item: Any, output: Any) -> None:
        """Takes in an image: its record, the model's input and its output."""

    @abstractmethod
    def evaluate(self) -> Results:
        """The results over the images of all ranks, `{task: {metric: value}}`, the same on every rank."""


class Evaluators:
    """Judges each thing that a model makes by the evaluator that looks at it; what no evaluator looks at is left.

    They work while the model makes the next batch, each in a thread of its own, one batch at a time: so each sees the
    batches in their order, and beside what the model is at there is one batch of outputs in memory. Those on a GPU are
    copied by these threads, on its default stream as the model's: untested on a GPU.

    Args:
        name: of the data set, for messages.
        evaluators: what the truth of the data set can judge.
    """

    def __init__(self, name: str, evaluators: Sequence[Evaluator]) -> None:
        self.name, self.evaluators = name, evaluators
        self._threads = ThreadPoolExecutor(len(evaluators), "evaluator")
        self._under_way: list[Future[None]] = []
        self._made: set[str] = set()
        self._num_images = 0

    def reset(self) -> None:
        """Forgets all images, and what went wrong with them."""
        wait(self._under_way)
        self._under_way, self._made, self._num_images = [], set(), 0
        for evaluator in self.evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Takes in a batch, as soon as the one before is judged; it must not be changed afterwards.

        Raises:
            UserError: the truth of the data set can judge nothing that the model makes; or what an evaluator says of
                the batch before, with the name of the image.
        """
        made_by_all = set.intersection(*(set(output) for output in outputs))
        used = served(self.name, self.evaluators, made_by_all)
        self._finish()
        self._under_way = [self._threads.submit(evaluator.process, inputs, outputs) for evaluator in used]
        self._made |= {evaluator.judges[0] for evaluator in used}
        self._num_images += len(inputs)

    def _finish(self) -> None:
        """Waits for the batch that is under way. Of several errors the first evaluator's is raised."""
        done, self._under_way = self._under_way, []
        wait(done)
        for future in done:
            future.result()

    def evaluate(self) -> Results:
        """The results of all evaluators that had something to judge, on any rank.

        Raises:
            UserError: what an evaluator says of the last batch.
        """
        self._finish()
        results: Results = {}
        for evaluator in self._used():
            results |= evaluator.evaluate()
        return results

    def facts(self) -> dict[str, Any]:
        """What a report says of them: `images`, how many were judged, and `rules` by output. All ranks must call it."""
        return {"images": sum(gather(self._num_images)), "rules": {e.judges[0]: dict(e.rules) for e in self._used()}}

    def _used(self) -> list[Evaluator]:
        made = set().union(*gather(self._made))  # a rank without images has to take part too
        return [evaluator for evaluator in self.evaluators if evaluator.judges[0] in made]


def check_shape(record: ImageRecord, predicted: Tensor, truth: Tensor) -> None:
    """Raises ValueError where a model's map is of another size than the truth of the image."""
    if predicted.shape != truth.shape:
        shapes = f"{tuple(predicted.shape)}, not {tuple(truth.shape)}"
        raise ValueError(f"the prediction of {record['file_name']} is {shapes}")


def served(name: str, evaluators: Sequence[Any], made: AbstractSet[str]) -> list[Any]:
    """Those evaluators, or classes of them, of data set `name` that can judge what a model makes.

    Raises:
        UserError: none can.
    """
    used = [evaluator for evaluator in evaluators if made & set(evaluator.judges)]
    if not used:
        wanted = ", ".join(evaluator.judges[0] for evaluator in evaluators)
        makes = ", ".join(sorted(made)) or "nothing"
        raise UserError(
            f"data set {name} has truth for {wanted} but the model makes {makes}: switch one of the former on in its "
            "configuration, or name another data set in DATASETS.TEST"
        )
    return used
