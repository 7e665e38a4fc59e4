"""What tables train and test: as little as their rows need, side by side, and not again what is there already.

A training is known by its configuration, its overrides and its seed. Rows that differ only in what testing reads are
tests of one training, within a table and between tables.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from detectron2_sam.commands import doctor
from detectron2_sam.commands.cli import program_process
from detectron2_sam.commands.reproduce.table import Row, Table, Training
from detectron2_sam.methods import full_cfg, leaves
from sam_common.errors import Interrupted, UserError
from sam_common.signals import StopFlag, stop_on_signals
from sam_common.text import some

Metrics = dict[str, float]
"""task/metric -> value"""
_NO_MATTER = {"OUTPUT_DIR", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD"}  # of the numbers
_TEST_COST = 0.1  # of a training's time
_BAR = "{percentage:.0f} %: {elapsed} so far, about {remaining} left"


def make_plan(tables: Sequence[Table]) -> dict[Row, float]:
    """Everything that tables need, seed after seed, a training before its tests, with the minutes that it takes."""
    plan: dict[Row, float] = {}
    for seed in range(max(table.seeds for table in tables)):
        for table in tables:
            for row in table.rows.values() if seed < table.seeds else ():
                if row.training.trains:
                    plan.setdefault(Row(row.at(seed).training), table.minutes)
                plan.setdefault(row.at(seed), table.minutes * _TEST_COST)
    return plan


class Runner:
    """The runs that tables need, each a training that ends with a test, or a test.

    Attributes:
        plan: row -> the minutes that it takes, 0 where that is not known.
        lacks: row -> the data sets, weights and packages that it needs and that are not here; some it downloads itself.
    """

    def __init__(self, tables: Sequence[Table], output: Path, given: Sequence[str]) -> None:
        """Plans runs in folders of `output`, with `given` for each `detectron2-sam train`.

        Raises:
            UserError: a configuration cannot be read, or names an unknown data set; a folder is of other settings.
        """
        self.plan, self.output, self.given = make_plan(tables), output, given
        for row in self.plan:
            check_settings(output / row.folder, row.training.config, row.settings)
        self.lacks = {row: self._find_lacking(row) for row in self.plan}

    def _find_lacking(self, row: Row) -> list[doctor.Finding]:
        cfg = full_cfg(row.training.config, row.settings)
        if not row.training.trains or self.is_trained(row):
            cfg.DATASETS.TRAIN = ()
        found = [*doctor.datasets(cfg), *doctor.weights(cfg), *doctor.boxes(cfg)]
        return [finding for finding in found if finding.needed and not finding.found]

    def results(self) -> dict[Row, Metrics]:
        """The metrics of every run; none where it is not done."""
        return {row: read_results(self.output / row.folder) for row in self.plan}

    def waits(self, row: Row) -> bool:
        """Whether something is missing that somebody has to get."""
        return not all(finding.downloads for finding in self.lacks[row])

    def is_trained(self, row: Row) -> bool:
        """Whether the weights are here that a row tests."""
        return (self.output / row.training.folder / "model_final.pth").is_file()

    def arguments(self, row: Row) -> list[str]:
        """What `detectron2-sam train` is given. What is trained already, elsewhere or up to its test, is only tested.

        Tested are the weights that the training itself tests: those that a validation chose, else the last.
        """
        training, folder = row.training, self.output / row.training.folder
        resumes = training.trains and not row.tests and not self.is_trained(row)
        best = folder / "model_best.pth"
        weights = ["MODEL.WEIGHTS", str(best if best.is_file() else folder / "model_final.pth")]
        mode = ["--engine", "fabric", "--resume" if resumes else "--eval-only", *self.given]
        keys = ["OUTPUT_DIR", str(self.output / row.folder), *row.settings]
        return ["--config-file", training.config, *mode, *keys, *(weights if training.trains and not resumes else [])]

    def describe(self, jobs: int) -> str:
        """The command of every run, how many there are, and once each thing that is missing, with where to get it."""
        results = self.results()
        marks = {row: "done" if results[row] else "lacks" if self.waits(row) else "run" for row in self.plan}
        lines = [f"{mark:>5}  detectron2-sam train {shlex.join(self.arguments(row))}" for row, mark in marks.items()]
        counted = Counter(marks.values())
        words = {"done": "are done", "run": "can be run", "lacks": "wait for what is missing"}
        counts = ", ".join(f"{counted[mark]} {what}" for mark, what in words.items() if counted[mark])
        left = [row for row, mark in marks.items() if mark != "done"]
        minutes = sum(self.plan[row] for row in left) / jobs
        about = (
            f"; about {minutes:.0f} minutes with {jobs} side by side" if left and all(map(self.plan.get, left)) else ""
        )
        missing = {finding.name: str(finding) for row in left for finding in self.lacks[row]}
        told = ["missing:", *missing.values()] if missing else []
        return "\n".join([*lines, "", f"{len(lines)} runs: {counts}{about}", *told])

    def carry_out(self, jobs: int, threads: int | None) -> list[UserError]:
        """Runs what is not done and possible, `jobs` side by side, each on so many threads; returns what failed.

        Raises:
            Interrupted: a signal came; the runs have saved their state.
        """
        groups: dict[Training, list[Row]] = {}
        for row, results in self.results().items():
            if not results and not self.waits(row):
                groups.setdefault(row.training, []).append(row)
        total = sum(self.plan[row] or 1.0 for group in groups.values() for row in group)
        progress = tqdm(total=total, file=sys.stdout, bar_format=_BAR)

        def run(group: Sequence[Row]) -> list[UserError]:  # a training and its tests, one after the other
            failures = []
            for row in group:
                done = self.is_trained(row) or read_results(self.output / row.training.folder)
                if row.tests and row.training.trains and not done:
                    continue  # its training has failed, or waits
                try:
                    train(self.arguments(row), stop, threads)
                except UserError as error:
                    failures.append(error)
                progress.update(self.plan[row] or 1.0)
            return failures

        with progress, stop_on_signals() as stop, ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(run, group) for group in groups.values()]
        check_not_stopped(stop)
        return [failure for future in futures for failure in future.result()]


def train(arguments: list[str], stop: StopFlag, threads: int | None = None) -> None:
    """Runs `detectron2-sam train`, on so many threads where that is told; what it prints is in its own log.

    Raises:
        UserError: it failed, and the last line it printed says why; or another process runs it.
        Interrupted: `stop` is set; the run has saved its state.
    """
    check_not_stopped(stop)
    tqdm.write(shlex.join(["detectron2-sam", "train", *arguments]))
    process = program_process("train", *arguments)
    if threads:
        process["env"]["OMP_NUM_THREADS"] = str(threads)
    folder = Path(arguments[arguments.index("OUTPUT_DIR") + 1])
    run = subprocess.Popen(**process, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
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


def read_results(folder: Path) -> Metrics:
    """The metrics of a finished run, by task/metric, of the one data set it evaluated; empty where it has not finished.

    What is no number there is left out.

    Raises:
        UserError: the file is damaged, or there are several, of several data sets.
    """
    files = sorted(folder.glob("inference/*/results.json"))
    if not files:
        return {}
    if len(files) > 1:
        names = ", ".join(file.parent.name for file in files)
        raise UserError(f"{folder}/inference has results of several data sets, {names}: move the others elsewhere")
    try:
        report = json.loads(files[0].read_text(encoding="utf-8"))
        tasks = report["results"].items() if _is_of_the_end(folder, report) else ()
        return {f"{task}/{name}": v for task, metrics in tasks for name, v in metrics.items() if v is not None}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{files[0]} is damaged: delete it and give the same command again") from error


def _is_of_the_end(folder: Path, report: dict[str, Any]) -> bool:
    """Whether a report is none that `TEST.EVAL_PERIOD` made on the way."""
    config = folder / "config.yaml"  # of a training; a test has it elsewhere
    if report.get("checkpoint_choice") != "last" or not config.is_file():
        return True
    return bool(report["iteration"] + 1 >= yaml.safe_load(config.read_text(encoding="utf-8"))["SOLVER"]["MAX_ITER"])


def check_settings(folder: Path, config: str, options: Sequence[str]) -> None:
    """Lets no run be taken for one of other settings, as after an edit of its configuration file.

    Keys that only one of the two has, of a version with more of them, do not count; nor do the weights of a test,
    which are those of its training.

    Raises:
        UserError: what is in the folder was not run with `config` and `options`.
    """
    known = next((file for file in (folder / "config.yaml", folder / "inference/config.yaml") if file.is_file()), None)
    if known is None:
        return
    try:
        then = dict(leaves(yaml.safe_load(known.read_text(encoding="utf-8"))))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{known} is damaged: delete its folder and give the same command again") from error
    now = dict(leaves(yaml.safe_load(full_cfg(config, options).dump())))
    skipped = _NO_MATTER | ({"MODEL.WEIGHTS"} if known.parent != folder else set())
    other = [key for key in sorted(now.keys() & then.keys() - skipped) if now[key] != then[key]]
    if other:
        told = some([f"{key} {then[key]}, now {now[key]}" for key in other], most=3)
        raise UserError(f"{folder} was run with other settings ({told}): delete it, or give another --output")
