"""The loop of an evaluation with the evaluators beside the model, against one after the other: JSON lines.

    python -m benchmarks.evaluation_overlap

A stand-in for the model takes `--milliseconds` for each image: it waits, as for a GPU, or multiplies matrices on one
core. Panoptic, semantic and instance evaluators judge what it makes, 480×640 pixels. The peer is the same loop in which
each batch is judged before the next one is begun; results and files are compared first. Needs a core that is free.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.evaluation_memory import CASES, SEGMENTS, VOCABULARY, panoptic_truth
from benchmarks.scenes import segment_map
from benchmarks.side_by_side import Parser, in_turn, tell
from detectron2_sam.commands.cli import run_tool
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine.evaluation import evaluate
from sam_common.evaluation.evaluator import Evaluators

HEIGHT, WIDTH = 480, 640
KINDS = ("panoptic", "semantic", "instances")


class OneAfterTheOther(Evaluators):
    """Each batch is judged before `process` comes back."""

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        super().process(inputs, outputs)
        self._finish()


class StandIn(nn.Module):
    """A model that knows what to say but takes its time."""

    def __init__(self, answers: Mapping[int, dict[str, Any]], work: Callable[[], Any]) -> None:
        super().__init__()
        self.answers, self.work = answers, work

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.work()
        return [self.answers[item["image_id"]] for item in batch]


def multiply(milliseconds: float) -> Callable[[], Any]:
    """Matrix products that keep a core busy that long."""
    matrix = torch.rand(256, 256)

    def work() -> None:
        end = time.thread_time() + milliseconds / 1e3
        while time.thread_time() < end:
            matrix @ matrix

    return work


def main() -> None:
    """Prints a line for each stand-in."""
    args = Parser(__doc__, milliseconds=25.0, images=20, repeats=3).parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "truth").mkdir()
        records: list[dict[str, Any]] = []
        answers: dict[int, dict[str, Any]] = {}
        for number in range(args.images):
            labels = segment_map(HEIGHT, WIDTH, SEGMENTS, seed=number)
            size = {"height": HEIGHT, "width": WIDTH}
            record = {"image_id": number, "file_name": str(folder / f"{number}.jpg"), **size}
            records.append(record | panoptic_truth(labels, folder / "truth" / f"{number}.png"))
            answers[number] = {k: v for kind in KINDS for k, v in CASES[kind].prediction(labels)[1].items()}
        files = {"images": str(folder), "panoptic": str(folder / "truth")}
        spec = DatasetSpec("generated", lambda: records, lambda: VOCABULARY, files=files)
        works = {"waits": lambda: time.sleep(args.milliseconds / 1e3), "multiplies": multiply(args.milliseconds)}
        for does, work in works.items():
            model = StandIn(answers, work)

            def loop(kind: type[Evaluators], out: str, model: nn.Module = model) -> Callable[[], Any]:
                judges = [CASES[name].evaluator(spec, output_dir=folder / out) for name in KINDS]
                batches = [[{"image_id": record["image_id"]}] for record in records]

                def run() -> Any:
                    context, judge = contextlib.nullcontext(), kind("generated", judges)
                    return evaluate(model, batches, judge, name="", autocast=context, stopped=lambda: False)

                return run

            peer, ours = loop(OneAfterTheOther, "peer"), loop(Evaluators, "ours")
            if repr(peer()) != repr(ours()) or written(folder / "peer") != written(folder / "ours"):  # NaN is not NaN
                raise SystemExit("the results differ")
            measured = in_turn(peer, ours, repeats=args.repeats, threads=2) | {"images": args.images}
            tell(f"evaluation beside a model that {does} {args.milliseconds:g} ms", "one after the other", measured)


def written(folder: Path) -> dict[str, bytes]:
    """The files of an evaluation."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    sys.exit(run_tool(main))
