"""What is to be run for a table, what of it this machine lacks, and running what it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2_sam.commands import doctor
from detectron2_sam.commands.reproduce import runs
from detectron2_sam.commands.reproduce.results import Metrics, check_settings, read_results
from detectron2_sam.commands.reproduce.runs import Cell, Options, arguments_of, make_plan, settings_of, trained_weights
from detectron2_sam.commands.reproduce.table import Table
from detectron2_sam.methods import full_cfg
from sam_common.engine.launch import stop_on_signals
from sam_common.errors import UserError


@dataclass(frozen=True)
class Run:
    """A training that ends with a test, or a test.

    Attributes:
        cell: what is trained and tested.
        output: where the folders of all runs are.
        device, flags: `MODEL.DEVICE`, and what else `tools/train_net.py` is given.
        lacks: the data sets, weights and packages that it needs and that are not here; some it downloads itself.
    """

    cell: Cell
    output: Path
    device: str
    flags: Sequence[str]
    lacks: Sequence[doctor.Finding]

    @property
    def folder(self) -> Path:
        return self.output / self.cell.folder

    def results(self) -> Metrics:
        """Its metrics; empty where it is not done."""
        return read_results(self.folder)

    def waits(self) -> bool:
        """Whether something is missing that somebody has to get."""
        return not all(finding.downloads for finding in self.lacks)

    def is_possible(self) -> bool:
        """Whether it need not wait, neither for data nor for a training whose weights it tests."""
        tests_weights = bool(self.cell.tests) and self.cell.training.trains
        return not self.waits() and (not tests_weights or _is_trained(self.cell, self.output))

    def arguments(self) -> list[str]:
        """What `tools/train_net.py` is given. Which weights are tested is known when the training is done."""
        words = arguments_of(self.cell, self.output, self.device, self.flags)
        if "--resume" in words and _is_trained(self.cell, self.output):  # elsewhere, or its test was interrupted
            words[words.index("--resume")] = "--eval-only"
            words += ["MODEL.WEIGHTS", str(trained_weights(self.folder))]
        return words


def plan(table: Table, seeds: int, output: Path, *, device: str, flags: Sequence[str]) -> list[Run]:
    """Everything that a table needs, a training before its tests.

    Raises:
        UserError: a configuration cannot be read, or names an unknown data set; a folder is of other settings.
    """
    planned = []
    lacking: dict[tuple[str, Options, bool], list[doctor.Finding]] = {}  # the same for every seed
    for cell in make_plan([table.rows], seeds):
        check_settings(output / cell.folder, cell.training.config, settings_of(cell))
        only_tests = not cell.training.trains or _is_trained(cell, output)
        asked = cell.training.config, (*cell.training.options, *cell.tests), only_tests
        if asked not in lacking:
            lacking[asked] = _lacking(*asked)
        planned.append(Run(cell, output, device, flags, lacking[asked]))
    return planned


def _is_trained(cell: Cell, output: Path) -> bool:
    return (output / cell.training.folder / "model_final.pth").is_file()


def _lacking(config: str, options: Options, only_tests: bool) -> list[doctor.Finding]:
    """A test of what is trained needs no training data."""
    cfg = full_cfg()
    cfg.merge_from_file(config)
    cfg.merge_from_list(list(options))
    if only_tests:
        cfg.DATASETS.TRAIN = ()
    found = [*doctor.datasets(cfg), *doctor.weights(cfg), *doctor.boxes(cfg)]
    return [finding for finding in found if finding.needed and not finding.found]


def run_what_can_be(planned: Sequence[Run]) -> list[UserError]:
    """Runs one after the other what is not done and possible; returns what failed."""
    failures = []
    with stop_on_signals() as stop:
        for number, run in enumerate(planned, start=1):
            if not run.results() and run.is_possible():
                print(f"\n[{number}/{len(planned)}] its log.txt is in {run.folder}", flush=True)
                try:
                    runs.train_net(run.arguments(), stop)
                except UserError as error:
                    failures.append(error)
    return failures
