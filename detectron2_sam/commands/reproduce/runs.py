"""What an ablation trains and tests: as little as its rows need, side by side, and not again what is there.

A training is known by its configuration, its overrides and its seed. Rows that differ only in what testing reads are
tests of one training, within a table and between tables.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from detectron2_sam.commands.reproduce.results import Metrics, check_settings, leaves, read_results
from detectron2_sam.commands.reproduce.rows import Rows
from sam_common.config import find_config
from sam_common.engine.launch import Interrupted, StopFlag, stop_on_signals
from sam_common.errors import UserError

PROGRAM = (sys.executable, "-m", "detectron2_sam")
TEST_KEYS = ("MODEL.POSSAM.ENSEMBLE.", "MODEL.POSSAM.TEST.", "MODEL.PLUG.TEST.")
"""Beginnings of the keys that no training reads."""
_TEST_COST = 0.1  # of a training's time

Options = tuple[str, ...]
"""KEY, VALUE, …, in the order of their keys."""


@dataclass(frozen=True)
class Training:
    """What is trained once, however many rows are tests of it; without `trains` it is tested as it is."""

    config: str
    options: Options
    seed_keys: tuple[str, ...]
    seed: int
    trains: bool

    @property
    def folder(self) -> str:
        """Another one for every configuration and seed."""
        return f"{Path(self.config).stem}-{_name(self.options, self.config)}-seed{self.seed}"


@dataclass(frozen=True)
class Cell:
    """A training, and overrides for testing it: none for what it ends with itself."""

    training: Training
    tests: Options

    @property
    def folder(self) -> str:
        return f"{self.training.folder}/tests/{_name(self.tests)}" if self.tests else self.training.folder


def _name(options: Options, config: str = "") -> str:
    """Readable as far as it is short, and no other options have it."""
    words = "-".join(re.sub(r"\W+", "_", f"{key.rpartition('.')[2]}_{value}") for key, value in _pairs(options))
    known = hashlib.sha256("\n".join([config, *options]).encode()).hexdigest()
    return f"{words[:100]}-{known[:8]}".lstrip("-")


Plan = dict[Cell, float]
"""What is to be done, in this order, and how many minutes that takes."""


def find_cell(rows: Rows, label: str, tested: str, seed: int) -> Cell:
    """What a row is with one seed, tested in one way."""
    trains, row = label in rows.trained, (rows.trained | rows.untrained)[label]
    config, given = _base(row.config, dict(_pairs(row.options)))
    tests = {key: value for key, value in given.items() if key.startswith(TEST_KEYS)}
    options = {key: value for key, value in given.items() if key not in tests}
    training = Training(config, _options(options), tuple(rows.seed_keys), seed if trains else 0, trains)
    return Cell(training, _options({**tests, **dict(_pairs(rows.tested[tested]))}))


def _base(config: str, given: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The configuration that a training reads, and overrides: a file that adds to its `_BASE_` what only testing reads
    is that base, tested in its way."""
    met: set[str] = set()
    while config not in met:  # what leads back to itself, or cannot be read, its run says itself
        met.add(config)
        try:
            file = find_config(config)
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (UserError, OSError, yaml.YAMLError, UnicodeDecodeError):
            break
        if not isinstance(content, dict) or not isinstance(base := content.pop("_BASE_", None), str):
            break
        content.pop("OUTPUT_DIR", None)
        added = {key: str(value) for key, value in leaves(content)}
        if not all(key.startswith(TEST_KEYS) for key in added):
            break
        config, given = _base_name(config, base), {**added, **given}
    return config, given


def _base_name(config: str, base: str) -> str:
    """The name of a configuration's `_BASE_`, the same from every working directory where `config` is a shipped one."""
    beside = os.path.normpath(Path(config).parent / base)
    try:
        find_config(beside)
    except UserError:  # then it is a shipped one, by its name
        return f"configs/{Path(base).name}"
    return beside


def _pairs(words: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)


def _options(given: dict[str, str]) -> Options:
    return tuple(word for key in sorted(given) for word in (key, given[key]))


def make_plan(tables: Sequence[Rows], seeds: int) -> Plan:
    """All that the tables need, seed after seed, a training before its tests."""
    plan: Plan = {}
    for seed in range(seeds):
        for rows in tables:
            for label in rows.labels:
                for tested in rows.tested:
                    cell = find_cell(rows, label, tested, seed)
                    if cell.training.trains:
                        plan.setdefault(Cell(cell.training, ()), rows.minutes)
                    plan.setdefault(cell, rows.minutes * _TEST_COST)
    return plan


def carry_out(plan: Plan, output: Path, *, jobs: int, device: str = "cpu") -> dict[Cell, Metrics]:
    """The metrics of every cell of a plan. What is complete is read, everything else is run, `jobs` side by side.

    Raises:
        UserError: a run failed; first the others are finished, and further failures told. Or a folder is of other
            settings, then nothing is run.
        Interrupted: a signal came; the runs have saved their state.
    """
    for cell in plan:
        check_settings(output / cell.folder, cell.training.config, settings_of(cell))
    results = {cell: read_results(output / cell.folder) for cell in plan}
    todo = [cell for cell in plan if not results[cell]]
    progress = Progress([plan[cell] for cell in todo], jobs)
    waiting: dict[Training, list[Cell]] = {}
    for cell in todo:
        waiting.setdefault(cell.training, []).append(cell)

    def run(cells: list[Cell]) -> None:  # a training and its tests, one after the other
        for cell in cells:
            train_net(arguments_of(cell, output, device), stop, threads=1)
            results[cell] = read_results(output / cell.folder)
            progress.tell(plan[cell], cell.folder)

    with stop_on_signals() as stop, ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, cells) for cells in waiting.values()]
    check_not_stopped(stop)
    failures = [error for future in futures if (error := future.exception())]
    for error in failures[1:]:
        print(f"error: {error}", file=sys.stderr)
    if failures:
        raise failures[0]
    return results


class Progress:
    """Tells what is done, and how long the rest takes: as long as what was done took, for its share."""

    def __init__(self, minutes: Sequence[float], jobs: int) -> None:
        self.left, self.of, self.done, self.count = sum(minutes), len(minutes), 0.0, 0
        self.start, self.lock = time.monotonic(), threading.Lock()
        if minutes:
            print(f"{self.of} runs, about {self.left / jobs:.0f} minutes", flush=True)

    def tell(self, minutes: float, name: str) -> None:
        with self.lock:
            self.done, self.left, self.count = self.done + minutes, self.left - minutes, self.count + 1
            passed = (time.monotonic() - self.start) / 60
            rest = f"about {passed * max(self.left, 0.0) / self.done:.0f} left"
            print(f"[{self.count}/{self.of}] {passed:.0f} minutes, {rest}: {name}", flush=True)


def arguments_of(cell: Cell, output: Path, device: str, flags: Sequence[str] = ()) -> list[str]:
    """What `tools/train_net.py` is given to make a cell, a training or a test of its weights; `flags` as well."""
    training, folder = cell.training, output / cell.training.folder
    mode = "--resume" if training.trains and not cell.tests else "--eval-only"
    weights = ["MODEL.WEIGHTS", str(trained_weights(folder))] if training.trains and cell.tests else []
    keys = ["OUTPUT_DIR", str(output / cell.folder), *settings_of(cell), *weights]
    return ["--config-file", training.config, "--engine", "fabric", mode, *flags, "MODEL.DEVICE", device, *keys]


def settings_of(cell: Cell) -> list[str]:
    """KEY, VALUE, …: what it changes of its configuration."""
    training = cell.training
    seeded = [word for key in training.seed_keys for word in (key, str(training.seed))]
    return [*seeded, *training.options, *cell.tests]


def trained_weights(folder: Path) -> Path:
    """What the training itself tested: the weights that a validation chose, else the last."""
    best = folder / "model_best.pth"
    return best if best.is_file() else folder / "model_final.pth"


def train_net(arguments: list[str], stop: StopFlag, threads: int | None = None) -> None:
    """Runs tools/train_net.py, on so many threads where that is told; what it prints is in its own log.

    Raises:
        UserError: it failed, and the last line it printed says why; or another process runs it.
        Interrupted: `stop` is set; the run has saved its state.
    """
    check_not_stopped(stop)
    print(shlex.join(["python", "tools/train_net.py", *arguments]), flush=True)
    command = [*PROGRAM, "train", *arguments]
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    folder = Path(arguments[arguments.index("OUTPUT_DIR") + 1])
    with _claimed(folder) as lock:
        # The run holds the lock as well, so where it outlives a killed parent it is not begun a second time.
        run = subprocess.Popen(
            command, env=environment, pass_fds=[lock], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        errors = None
        while errors is None:
            try:
                _, errors = run.communicate(timeout=1)
            except subprocess.TimeoutExpired:
                if stop.signum:
                    run.terminate()
    if run.returncode:
        check_not_stopped(stop)
        last = (errors.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        raise UserError(f"{folder}: the run failed ({last}); give the same command again to go on")


def check_not_stopped(stop: StopFlag) -> None:
    if stop.signum:
        raise Interrupted("stopped: give the same command again to go on", stop.signum)


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[int]:
    """The descriptor of a lock on a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{folder}: another process runs it; end that, or give another --output") from error
        yield lock.fileno()


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What the tools that run ablations share."""
    parser.add_argument("--seeds", type=int, default=3, help="how many, counted from 0 (3)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (one for each core)")
    parser.add_argument("--device", default="cpu", help="MODEL.DEVICE of the runs (cpu)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override every row")


def check_run_arguments(args: argparse.Namespace) -> None:
    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; give at least 1")
    check_pairs(args.opts)


def check_pairs(words: Sequence[str]) -> None:
    if len(words) % 2:
        raise UserError(f"overrides come as KEY VALUE pairs, got {len(words)} words: {' '.join(words)}")
