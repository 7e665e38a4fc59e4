"""The runner: which commands it runs, what it reuses, and its table."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from detectron2_sam.commands import reproduce
from detectron2_sam.commands.reproduce import runs
from detectron2_sam.commands.reproduce.table import read_table
from detectron2_sam.methods import full_cfg
from sam_common.errors import Interrupted, UserError
from sam_common.signals import StopFlag, stop_on_signals

ROWS = """
config: c.yaml
metrics: [panoptic_seg/PQ, segm/AP]
trained: {a: [], b: [X, 1]}
tested: {mase: [], clip: [E, clip]}
"""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for training, which lacks nothing: records the command and leaves weights, and results whose PQ is
    10·seed, +1 for row b, +2 for clip."""
    seen: list[list[str]] = []

    def train(arguments: list[str], stop: StopFlag, threads: int) -> None:
        seen.append(arguments)
        value = 10.0 * int(arguments[arguments.index("SEED") + 1]) + ("X" in arguments) + 2 * ("clip" in arguments)
        folder = Path(arguments[arguments.index("OUTPUT_DIR") + 1]) / "inference" / "data"
        folder.mkdir(parents=True)
        if "--resume" in arguments:
            (folder.parents[1] / "model_final.pth").touch()
        results = {"panoptic_seg": {"PQ": value}, "segm": {"AP": value / 2 if "X" in arguments else None}}
        (folder / "results.json").write_text(json.dumps({"results": results}))

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs.Runner, "_find_lacking", lambda self, row: [])
    return seen


def run(tmp_path: Path, rows: str, *options: str, status: int = 0) -> str:
    """The lines of a table with two seeds, run on the CPU; the exit status is as told."""
    (tmp_path / "rows.yaml").write_text(rows)
    given = ["--rows", str(tmp_path / "rows.yaml"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert reproduce.main([*given, "--jobs", "1", "--seeds", "2", *options]) == status
    lines = (tmp_path / "out" / "rows.md").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def test_rows_are_trained_once_and_tested_in_every_way(
    commands: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 rows × 2 seeds train, each tests once more with the same weights; mean and sample deviation by hand.

    A metric that is no number, or that a row does not have, is a dash.
    """
    table = run(tmp_path, ROWS)
    assert sum("--resume" in command for command in commands) == 4
    assert sum("--eval-only" in command for command in commands) == 4
    assert all(("MODEL.WEIGHTS" in command) == ("--eval-only" in command) for command in commands)
    assert "| row | panoptic_seg/PQ | segm/AP |" in table
    assert "| a, mase | 5.0 ± 7.1 | – |" in table and "| b, clip | 8.0 ± 7.1 | 4.0 ± 3.5 |" in table
    assert table in capsys.readouterr().out
    commands.clear()
    assert run(tmp_path, ROWS) == table and commands == []  # everything was complete


def test_a_row_without_training_is_tested_once(commands: list[list[str]], tmp_path: Path) -> None:
    """It has no weights, no seeds and no deviation; rows may have a configuration of their own.

    Metrics of one task are named without it.
    """
    rows = "{config: c.yaml, metrics: [amodal/mIoU, amodal/AP], untrained: {z: [A, B]}, trained: {own: d.yaml}}"
    table = run(tmp_path, rows, "--device", "cuda")
    first, *others = commands
    assert first[:4] == ["--config-file", "c.yaml", "--engine", "fabric"] and first[4] == "--eval-only"
    assert (
        "MODEL.WEIGHTS" not in first and first[-2:] == ["A", "B"] and first[first.index("MODEL.DEVICE") + 1] == "cuda"
    )
    assert [command[1] for command in others] == ["d.yaml", "d.yaml"] and all("--resume" in c for c in others)
    assert table.splitlines() == [
        "| row | mIoU | AP |",
        "| --- | --: | --: |",
        "| z | – | – |",
        "| own | – | – |",
    ]


def test_variants_and_seed_keys(commands: list[list[str]], tmp_path: Path) -> None:
    """Each trained row is trained with each variant, an untrained one is not; every seed key is given the seed."""
    rows = "{config: c.yaml, metrics: [a/b], seed_keys: [SEED, Y], untrained: {z: []}, trained: {a: [A, 1]}, "
    table = run(tmp_path, rows + "variants: {4 shots: [N, 4], 8 shots: [N, 8]}}")
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| z", "| a, 4 shots", "| a, 8 shots"]
    assert [command[-4:] for command in commands[1:]] == [["A", "1", "N", n] for n in "4848"]
    assert [(c[c.index("SEED") + 1], c[c.index("Y") + 1]) for c in commands[1:]] == [("0", "0")] * 2 + [("1", "1")] * 2
    assert "N" not in commands[0] and len(commands) == 5


def test_further_tests_are_of_the_weights_that_the_training_tested(commands: list[list[str]], tmp_path: Path) -> None:
    """Those that a validation chose where there was one, else the last."""
    rows = "{config: c.yaml, metrics: [a/b], trained: {a: []}, tested: {x: [], y: [E, 1]}}"
    (tmp_path / "rows.yaml").write_text(rows)
    folders = [
        tmp_path / "out" / read_table(str(tmp_path / "rows.yaml")).rows["a, y"].at(seed).training.folder
        for seed in range(2)
    ]
    folders[0].mkdir(parents=True)
    (folders[0] / "model_best.pth").touch()
    run(tmp_path, rows)
    weights = [c[c.index("MODEL.WEIGHTS") + 1] for c in commands if "MODEL.WEIGHTS" in c]
    assert weights == [str(folders[0] / "model_best.pth"), str(folders[1] / "model_final.pth")]


def test_rows_that_differ_in_testing_alone_share_a_training(commands: list[list[str]], tmp_path: Path) -> None:
    """The training itself has no such key.

    Rows with another key that is trained with have their own, in a folder of their own.
    """
    ensemble = "MODEL.POSSAM.ENSEMBLE.NAME"
    rows = f"config: c.yaml\nmetrics: [panoptic_seg/PQ]\ntrained:\n  ldp: [{ensemble}, ldp]\n  base: []\n"
    rows += f"  clip: [{ensemble}, clip]\n  wide: [WIDTH, 64]\n"
    table = run(tmp_path, rows)
    trained = [command for command in commands if "--resume" in command]
    assert [("WIDTH" in command, ensemble in command) for command in trained] == [(0, 0), (1, 0)] * 2
    assert [c[c.index(ensemble) + 1] for c in commands if ensemble in c] == ["ldp", "clip"] * 2
    assert len({c[c.index("OUTPUT_DIR") + 1] for c in commands}) == len(commands) == 8
    assert "| base | 5.0 ± 7.1 |" in table and "| clip | 7.0 ± 7.1 |" in table


def test_overrides_are_of_every_row(commands: list[list[str]], tmp_path: Path) -> None:
    """They come last, so they win over the row's own; other overrides are other runs."""
    rows = "{config: c.yaml, metrics: [a/b], trained: {a: [X, 1, Y, 2]}, untrained: {z: []}}"
    run(tmp_path, rows)
    run(tmp_path, rows, "X", "3")
    assert [c[c.index("X") + 1] for c in commands if "X" in c] == ["1", "1", "3", "3", "3"]
    with pytest.raises(UserError, match="overrides come as KEY VALUE pairs, got 1 words: X"):
        run(tmp_path, rows, "X")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("SEED", "a, x, y sets SEED, which is given each seed in turn (see --seeds); leave it out"),  # all would be one
        ("OUTPUT_DIR", "a, x, y sets OUTPUT_DIR, which is given a folder of --output"),  # all would be in one folder
        ("MODEL.DEVICE", "a, x, y sets MODEL.DEVICE, which is given the --device"),
        ("N", "N is what its variants differ in; it cannot be overridden for all rows"),  # all points would be one
        ("E", "E is what its tested differ in"),  # it would have no effect
    ],
)
def test_overrides_that_would_undo_the_rows_are_refused(
    key: str, message: str, commands: list[list[str]], tmp_path: Path
) -> None:
    """Error: what the tools give themselves, and what makes variants and tests different."""
    rows = "{config: c.yaml, metrics: [a/b], trained: {a: []}, variants: {x: [N, 4]}, tested: {y: [], z: [E, 1]}}"
    with pytest.raises(UserError, match=re.escape(message)):
        run(tmp_path, rows, key, "1")
    assert commands == []


def test_a_failed_run_stops_no_other(
    commands: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was asked for first fails, and is not tested; what comes after it is complete; every failure is told."""
    leave_results = runs.train

    def train(arguments: list[str], stop: StopFlag, threads: int) -> None:
        if "X" not in arguments:
            raise UserError(f"a run failed: {arguments[arguments.index('SEED') + 1]}")
        leave_results(arguments, stop, threads)

    monkeypatch.setattr(runs, "train", train)
    run(tmp_path, ROWS, status=1)
    assert len(commands) == 4
    assert capsys.readouterr().err == "error: a run failed: 0\nerror: a run failed: 1\n"
    monkeypatch.setattr(runs, "train", leave_results)
    run(tmp_path, ROWS)
    assert len(commands) == 8


def test_a_test_without_its_weights_is_tried(commands: list[list[str]], tmp_path: Path) -> None:
    """What a finished training left may have been cleared away: its run says so, it is not passed over in silence."""
    rows = "{config: c.yaml, metrics: [a/b], trained: {a: []}"
    run(tmp_path, rows + "}")
    for weights in tmp_path.glob("out/*/model_final.pth"):
        weights.unlink()
    commands.clear()
    run(tmp_path, rows + ", tested: {x: [E, 1]}}")
    assert ["--eval-only" in command for command in commands] == [True, True]


RUN = """
import os, pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.kill(os.getppid(), signal.SIGTERM)  # what asked for this run is stopped
signal.sigwait({signal.SIGTERM})
folder = pathlib.Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
folder.mkdir(parents=True)
(folder / "saved").touch()
sys.exit(143)
"""
"""A run that is told to end, and saves its state."""


@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_stopped_tool_lets_its_runs_save_their_state(
    side_by_side: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM of the tool alone reaches the runs, in this thread and in others, and none goes on without it."""
    (tmp_path / "run.py").write_text(RUN)
    process = [sys.executable, str(tmp_path / "run.py")]
    monkeypatch.setattr(runs, "program_process", lambda *words: {"args": [*process, *words], "env": {**os.environ}})
    monkeypatch.setattr(runs.Runner, "_find_lacking", lambda self, row: [])
    (tmp_path / "rows.yaml").write_text(ROWS)
    runner = runs.Runner([read_table(str(tmp_path / "rows.yaml"))], tmp_path / "out", [])
    with pytest.raises(Interrupted, match="the same command again"):
        if side_by_side:
            runner.carry_out(jobs=1, threads=1)
        else:
            with stop_on_signals() as stop:
                runs.train(runner.arguments(next(iter(runner.plan))), stop)
    assert len(list(tmp_path.glob("out/*/saved"))) == len(list(tmp_path.glob("out/*"))) == 1


@pytest.mark.parametrize("place", ["config.yaml", "inference/config.yaml"])
def test_a_run_of_other_settings_is_not_taken_for_this_one(
    place: str, commands: list[list[str]], tmp_path: Path
) -> None:
    """After an edit of the configuration file the earlier folder, of a training or a test, is named and nothing runs.

    The seeds, tuples, the order of keys and where the run is do not make it another.
    """
    base = tmp_path / "base.yaml"
    known = "DATASETS: {REGISTER: [{NAME: own, FORMAT: image_masks, IMAGES: a, MASKS: b}]}"
    base.write_text(f"SOLVER: {{MAX_ITER: 3, STEPS: [1, 2]}}\n{known}")
    rows = f"{{config: {base}, metrics: [a/b], trained: {{a: [TEST.EVAL_PERIOD, 4]}}}}"
    run(tmp_path, rows)
    (folder,) = tmp_path.glob("out/*-seed1")
    cfg = full_cfg()
    cfg.merge_from_file(str(base))
    cfg.merge_from_list(["SEED", "1", "TEST.EVAL_PERIOD", "4", "OUTPUT_DIR", "elsewhere", "MODEL.DEVICE", "cuda"])
    (folder / place).write_text(cfg.dump())
    commands.clear()
    run(tmp_path, rows)
    assert commands == []
    base.write_text(f"SOLVER: {{MAX_ITER: 5, STEPS: [1, 2]}}\n{known}")
    with pytest.raises(
        UserError, match=rf"{folder} was run with other settings \(SOLVER.MAX_ITER 3, now 5\): delete it"
    ):
        run(tmp_path, rows)
    assert commands == []


@pytest.mark.parametrize(
    ("choice", "iteration", "found"),
    [("last", 99, {"task/M": 1.0}), ("last", 49, {}), ("best of the validation", 49, {"task/M": 1.0})],
)
def test_an_evaluation_on_the_way_is_no_result(
    choice: str, iteration: int, found: dict[str, float], tmp_path: Path
) -> None:
    """TEST.EVAL_PERIOD leaves a report of each; only that of the last iteration, or of the best weights, counts."""
    (tmp_path / "config.yaml").write_text("SOLVER: {MAX_ITER: 100}")
    file = tmp_path / "inference" / "data" / "results.json"
    file.parent.mkdir(parents=True)
    report = {"results": {"task": {"M": 1.0}}, "checkpoint_choice": choice, "iteration": iteration}
    file.write_text(json.dumps(report))
    assert runs.read_results(tmp_path) == found
    (file.parent.parent / "other").mkdir()
    (file.parent.parent / "other" / "results.json").write_text("{}")
    with pytest.raises(UserError, match="has results of several data sets, data, other: move the others elsewhere"):
        runs.read_results(tmp_path)
    (file.parent.parent / "other" / "results.json").unlink()
    file.write_text(json.dumps(report)[:20])
    with pytest.raises(UserError, match=f"{file} is damaged: delete it"):
        runs.read_results(tmp_path)


def test_nothing_leads_out_of_the_folder(commands: list[list[str]], tmp_path: Path) -> None:
    """Runs are written below --output, whatever rows and overrides are called."""
    rows = (
        "{config: ../c.yaml, metrics: [a/b], trained: {../x: [A, ../../a]}, tested: {../y: [], /z: [B, /../../../b]}}"
    )
    run(tmp_path, rows)
    targets = [Path(command[command.index("OUTPUT_DIR") + 1]) for command in commands]
    assert len(targets) == 4 and all(target.resolve().is_relative_to(tmp_path / "out") for target in targets)


@pytest.mark.parametrize("flag", ["--seeds", "--jobs"])
def test_none_at_all_is_refused(flag: str) -> None:
    """No seeds have no mean, and no jobs never end."""
    with pytest.raises(UserError, match=f"{flag} is 0; give at least 1"):
        reproduce.main(["--rows", "configs/tables/ablation-possam.yaml", "--output", "x", flag, "0"])
