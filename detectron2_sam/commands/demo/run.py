"""What the demo of every method needs: what was asked for, phases that are timed, and trainings to run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from detectron2_sam.commands.cli import program_process
from detectron2_sam.commands.loss_curve import loss_curve
from detectron2_sam.methods import full_cfg
from sam_common.errors import Interrupted
from sam_common.io.files import write_text
from sam_common.reporting.page import PictureRow, Section
from sam_common.signals import stop_on_signals

NUM_TRAIN, NUM_TEST = 2000, 200


@dataclass
class Demo:
    """What was asked for, and how long each phase took over all attempts; kept in `demo.json`.

    Attributes:
        output: the folder of everything.
        seed: of the trainings.
        fraction: of the iterations that the configurations ask for.
        processes: that train together on a CPU.
        seconds: phase -> time.
    """

    output: Path
    seed: int = 0
    fraction: float = 1.0
    processes: int = 1
    seconds: dict[str, float] = field(default_factory=dict)

    def iterations(self, config: str) -> int:
        """Of the training of a configuration file."""
        return max(1, round(self.fraction * full_cfg(config).SOLVER.MAX_ITER))

    @contextmanager
    def phase(self, name: str, announcement: str) -> Iterator[None]:
        """Prints what begins and how long it took; the time counts even where the phase is interrupted."""
        print(f"\n== {announcement}", flush=True)
        start = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
            self.save()
        print(f"   done in {duration(spent)}", flush=True)

    def save(self) -> None:
        entry = {"seed": self.seed, "fraction": self.fraction, "seconds": self.seconds}
        write_text(self.output / "demo.json", json.dumps(entry, indent=1))


def train_and_test(demo: Demo, name: str, config: str, weights: Path, results: Path, tested: str, **more: int) -> None:
    """Trains a method and tests it, unless its weights and its results are there.

    Args:
        name: of the method.
        weights: what the training leaves in its OUTPUT_DIR.
        results: what the test leaves.
        tested: how many pictures, in words.
        more: as `train_net`.
    """
    if results.is_file() and weights.is_file():
        print(f"\n== {name} is trained and tested already: {weights}", flush=True)
        return
    iterations = demo.iterations(config)
    with demo.phase(f"training {name}", f"training {name}, {iterations:,} iterations, then testing it on {tested}"):
        train_net(demo, config, weights.parent, "--resume", "SOLVER.MAX_ITER", iterations, **more)


def test_only(demo: Demo, name: str, announcement: str, config: str, results: Path, *options: object) -> None:
    """Tests what those options make of a configuration, unless its results are there."""
    if not results.is_file():
        with demo.phase(f"testing {name}", f"testing {announcement}"):
            train_net(demo, config, results.parents[2], "--eval-only", *options)


def results_file(run: Path, dataset: str, name: str = "results.json") -> Path:
    """Where an evaluation leaves its results; `run` is its OUTPUT_DIR."""
    return run / "inference" / dataset / name


def last_sections(run: Path, rows: Sequence[PictureRow], of: str = "scenes") -> list[Section]:
    """What the part of every method ends with: pictures of its test, and its training."""
    text = f"Spread evenly over the test {of}, none chosen by hand."
    return [
        Section(f"{len(rows)} pictures", [text], rows=rows),
        Section("Training", curves=[loss_curve(run / "metrics.json")]),
    ]


def print_answers(
    heading: str, metrics: Mapping[str, str], answers: Mapping[str, Mapping[str, float]], *, width: int
) -> None:
    """Prints a line for each answer; `metrics`: key -> the heading of its column, `width` characters wide."""
    first = max(map(len, answers))
    print(f"\n{heading:{first}}{''.join(f'{words:>{width}}' for words in metrics.values())}")
    for name, means in answers.items():
        print(f"{name:{first}}{''.join(f'{means[key]:{width}.1f}' for key in metrics)}")


def train_net(demo: Demo, config: str, output: Path, mode: str, *options: object, processes: int | None = None) -> None:
    """Runs `detectron2-sam train` as anyone would, and shows how.

    Args:
        processes: where the method cannot use as many as were asked for.

    Raises:
        Interrupted: a signal came; the training has saved its state.
        SystemExit: with its status, if it did not end well; it has said why.
    """
    arguments = ["--config", config, "--engine", "fabric", mode]  # the same numbers wherever it runs
    if device_name() == "CPU":
        arguments += ["--num-gpus", str(processes or demo.processes)]
        options = ("MODEL.DEVICE", "cpu", *options)
    arguments += map(str, ("OUTPUT_DIR", output, "SEED", demo.seed, *options))
    print("  ", shlex.join(["detectron2-sam", "train", *arguments]), flush=True)
    process = subprocess.Popen(**program_process("train", *arguments))
    status: int | None = None
    with stop_on_signals() as stop:
        while status is None:
            try:
                status = process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                if stop.signum:  # it saves a checkpoint first, so it is waited for
                    process.terminate()
    if stop.signum:
        raise Interrupted("The demo stopped here; run it again to continue.", stop.signum)
    if status:
        print("The demo stopped here; run it again to continue.", file=sys.stderr)
        raise SystemExit(status if status > 0 else 128 - status)


def duration(seconds: float) -> str:
    """8 min 21 s, or 21 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
