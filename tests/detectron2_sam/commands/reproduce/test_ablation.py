"""The ablation runner: which commands it runs, what it reuses, and its table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from detectron2_sam.commands.reproduce import ablation, runs
from detectron2_sam.commands.reproduce.rows import read_rows
from detectron2_sam.methods import full_cfg
from sam_common.engine.launch import Interrupted, StopFlag, stop_on_signals
from sam_common.errors import UserError

ABLATIONS = Path(__file__).resolve().parents[4] / "configs" / "ablations"

ROWS = """
config: c.yaml
metrics: [panoptic_seg/PQ, segm/AP]
trained: {a: [], b: [X, 1]}
tested: {mase: [], clip: [E, clip]}
"""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for training: records the command and leaves results whose PQ is 10·seed, +1 for row b, +2 for clip."""
    seen: list[list[str]] = []

    def train_net(arguments: list[str], stop: StopFlag, threads: int) -> None:
        seen.append(arguments)
        value = 10.0 * int(arguments[arguments.index("SEED") + 1]) + ("X" in arguments) + 2 * ("clip" in arguments)
        folder = Path(arguments[arguments.index("OUTPUT_DIR") + 1]) / "inference" / "data"
        folder.mkdir(parents=True)
        results = {"panoptic_seg": {"PQ": value}, "segm": {"AP": value / 2 if "X" in arguments else None}}
        (folder / "results.json").write_text(json.dumps({"results": results}))

    monkeypatch.setattr(runs, "train_net", train_net)
    return seen


def run(tmp_path: Path, rows: str, *options: str) -> str:
    """The table of rows with two seeds."""
    (tmp_path / "rows.yaml").write_text(rows)
    arguments = [
        "--rows",
        str(tmp_path / "rows.yaml"),
        "--output",
        str(tmp_path / "out"),
        "--jobs",
        "1",
        "--seeds",
        "2",
    ]
    ablation.main([*arguments, *options])
    return (tmp_path / "out" / "table.md").read_text()


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
    assert "| row | tested | panoptic_seg/PQ | segm/AP |" in table
    assert "| a | mase | 5.0 ± 7.1 | – |" in table and "| b | clip | 8.0 ± 7.1 | 4.0 ± 3.5 |" in table
    assert table.strip() in capsys.readouterr().out
    commands.clear()
    assert run(tmp_path, ROWS) == table and commands == []  # everything was complete


def test_a_row_without_training_is_tested_once(commands: list[list[str]], tmp_path: Path) -> None:
    """It has no weights, no seeds and no deviation; rows may have a configuration of their own; one test has no column.

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
        tmp_path / "out" / runs.find_cell(read_rows(str(tmp_path / "rows.yaml")), "a", "y", seed).training.folder
        for seed in range(2)
    ]
    folders[0].mkdir(parents=True)
    (folders[0] / "model_best.pth").touch()
    run(tmp_path, rows)
    weights = [c[c.index("MODEL.WEIGHTS") + 1] for c in commands if "MODEL.WEIGHTS" in c]
    assert weights == [str(folders[0] / "model_best.pth"), str(folders[1] / "model_final.pth")]


def test_rows_that_differ_in_testing_alone_share_a_training(commands: list[list[str]], tmp_path: Path) -> None:
    """Whether the row says so itself or its file adds nothing else to its _BASE_; the training itself has no such key.

    Rows with another key that is trained with have their own, in a folder of their own.
    """
    ensemble = "MODEL.POSSAM.ENSEMBLE.NAME"
    (tmp_path / "base.yaml").write_text("MODEL: {POSSAM: {WIDTH: 32}}")
    (tmp_path / "clip.yaml").write_text(
        "{_BASE_: base.yaml, MODEL: {POSSAM: {ENSEMBLE: {NAME: clip}}}, OUTPUT_DIR: somewhere}"
    )
    (tmp_path / "wide.yaml").write_text("{_BASE_: clip.yaml, MODEL: {POSSAM: {WIDTH: 64}}}")
    base = str(tmp_path / "base.yaml")
    rows = f"config: {base}\nmetrics: [panoptic_seg/PQ]\ntrained:\n  ldp: [{ensemble}, ldp]\n  base: []\n"
    rows += "".join(f"  {name}: {tmp_path}/{name}.yaml\n" for name in ("clip", "wide"))
    table = run(tmp_path, rows)
    trained = [command for command in commands if "--resume" in command]
    assert [(command[1], ensemble in command) for command in trained] == [(base, 0), (f"{tmp_path}/wide.yaml", 0)] * 2
    assert [c[c.index(ensemble) + 1] for c in commands if ensemble in c] == ["ldp", "clip"] * 2
    assert len({c[c.index("OUTPUT_DIR") + 1] for c in commands}) == len(commands) == 8
    assert "| base | 5.0 ± 7.1 |" in table and "| clip | 7.0 ± 7.1 |" in table


def test_a_base_is_the_same_from_every_folder(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a shipped row it is called as a row of its own would; a user's file may have a shipped one by its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("{_BASE_: possam_T.yaml, MODEL: {POSSAM: {ENSEMBLE: {NAME: clip}}}}")
    run(tmp_path, "{metrics: [a/b], trained: {a: configs/ablations/possam_table7_clip.yaml, b: mine.yaml}}")
    trained = [command[1] for command in commands if "--resume" in command]
    assert trained == ["configs/possam_H.yaml", "configs/possam_T.yaml"] * 2


@pytest.mark.parametrize("content", ["_BASE_: c.yaml", "_BASE_: [", "_BASE_: [c.yaml]", "- 1", "X: 1"])
def test_a_configuration_that_is_none_is_left_to_its_run(
    content: str, commands: list[list[str]], tmp_path: Path
) -> None:
    """A file that leads back to itself, or is no configuration with one base, is handed on as it was named."""
    (tmp_path / "c.yaml").write_text(content)
    run(tmp_path, f"{{metrics: [a/b], trained: {{a: {tmp_path}/c.yaml}}}}")
    assert [command[1] for command in commands] == [f"{tmp_path}/c.yaml"] * 2


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
        ("SEED", "a, x sets SEED, which is given each seed in turn (see --seeds); leave it out"),  # all would be one
        ("OUTPUT_DIR", "a, x sets OUTPUT_DIR, which is given a folder of --output"),  # all would be in one folder
        ("MODEL.DEVICE", "a, x sets MODEL.DEVICE, which is given the --device"),
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


def test_progress_tells_what_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 10 minutes and 2 of 1, two side by side: 6; when the first has taken 20 minutes, the rest takes 4."""
    seconds = iter([0.0, 1200.0])
    monkeypatch.setattr(runs.time, "monotonic", lambda: next(seconds))
    runs.Progress([10, 1, 1], jobs=2).tell(10, "first")
    assert capsys.readouterr().out.splitlines() == [
        "3 runs, about 6 minutes",
        "[1/3] 20 minutes, about 4 left: first",
    ]


def test_a_failed_run_stops_no_other(
    commands: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was asked for first fails, what comes after it is complete the next time; every failure is told."""
    leave_results = runs.train_net

    def train_net(arguments: list[str], stop: StopFlag, threads: int) -> None:
        if "X" not in arguments:
            raise UserError(f"a run failed: {arguments[arguments.index('SEED') + 1]}")
        leave_results(arguments, stop, threads)

    monkeypatch.setattr(runs, "train_net", train_net)
    with pytest.raises(UserError, match="a run failed: 0"):
        run(tmp_path, ROWS)
    assert len(commands) == 4
    assert capsys.readouterr().err == "error: a run failed: 1\n"  # the other seed's
    monkeypatch.setattr(runs, "train_net", leave_results)
    run(tmp_path, ROWS)
    assert len(commands) == 8


RUN = """
import os, pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
os.kill(os.getppid(), signal.SIGTERM)  # what asked for this run is stopped
signal.sigwait({signal.SIGTERM})
pathlib.Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1], "saved").touch()
sys.exit(143)
"""
"""A run that is told to end, and saves its state."""


@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_stopped_tool_lets_its_runs_save_their_state(
    side_by_side: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM of the tool alone reaches the runs, in this thread and in others, and none goes on without it."""
    (tmp_path / "run.py").write_text(RUN)
    monkeypatch.setattr(runs, "TRAIN_NET", tmp_path / "run.py")
    (tmp_path / "rows.yaml").write_text(ROWS)
    plan = runs.make_plan([read_rows(str(tmp_path / "rows.yaml"))], 1)
    with pytest.raises(Interrupted, match="the same command again"):
        if side_by_side:
            runs.carry_out(plan, tmp_path / "out", jobs=1)
        else:
            with stop_on_signals() as stop:
                runs.train_net(runs.arguments_of(next(iter(plan)), tmp_path / "out", "cpu"), stop)
    assert len(list(tmp_path.glob("out/*/saved"))) == len(list(tmp_path.glob("out/*"))) == 1


def test_a_run_is_not_begun_twice(tmp_path: Path) -> None:
    """While it runs, another invocation leaves it alone and says so."""
    with runs._claimed(tmp_path), pytest.raises(UserError, match="another process runs it"):
        runs.train_net(["--help", "OUTPUT_DIR", str(tmp_path)], StopFlag())


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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{metrics: [a/b], train: {}}", "rows are given as .*, not train"),
        ("[1]", r"not \[1\]"),
        ("{metrics: [", "is no plain YAML"),
        ("{metrics: [PQ], config: c.yaml, trained: {a: []}}", "task/metric, such as panoptic_seg/PQ"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, tested: {a: X}}", "tested must give at least one label a"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, variants: {}}", "variants must give at least one label a"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, seed_keys: SEED}", "seed_keys must list at least one key"),
        ("{metrics: [a/b], config: c.yaml, trained: {}}", "trained must give at least one label a row"),
        ("{metrics: [a/b], config: c.yaml, trained: [a]}", "trained must give labels to rows"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: }}", "trained, a: give the name of a configuration"),
        ("{metrics: [a/b], trained: {a: [X, 1]}}", "trained, a: give the name of a configuration"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: [X]}}", "trained, a: give the name of a configuration"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, tested: {a: [X]}}", "tested must give at least one"),
        ("{metrics: [a/b], config: c.yaml, trained: {a: []}, minutes: 0}", "minutes must be how long a training takes"),
    ],
)
def test_a_wrong_rows_file_is_one_line(rows: str, message: str, tmp_path: Path) -> None:
    """What means nothing is named, not ignored."""
    (tmp_path / "rows.yaml").write_text(rows)
    with pytest.raises(UserError, match=message) as caught:
        read_rows(str(tmp_path / "rows.yaml"))
    assert "\n" not in str(caught.value)


FILES = sorted(path for path in ABLATIONS.glob("*.yaml") if "metrics" in yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_rows_are_configurations(file: Path) -> None:
    """Every row of every shipped file merges into a configuration, and no two rows are the same."""
    rows, seen = read_rows(str(file)), []
    for row in (rows.trained | rows.untrained).values():
        for options in rows.tested.values():
            cfg = full_cfg()
            cfg.merge_from_file(row.config)
            cfg.merge_from_list([*row.options, *options])
            cfg.OUTPUT_DIR = ""
            seen.append(cfg.dump())
    assert len(set(seen)) == len(seen) >= 3


@pytest.mark.parametrize(
    ("tables", "count"), [("possam_table*_*.yaml", 16), ("plug_table*_r*.yaml", 9), ("amsam_table4_row*.yaml", 4)]
)
def test_every_row_of_a_paper_is_in_a_file_of_rows(tables: str, count: int) -> None:
    """One configuration per row of the tables, and each is found by the file of its table."""
    files = [read_rows(str(file)) for file in FILES]
    named = {row.config for rows in files for row in (rows.trained | rows.untrained).values()}
    shipped = {f"configs/ablations/{path.name}" for path in ABLATIONS.glob(tables)}
    assert len(shipped) == count and shipped <= named


@pytest.mark.parametrize("file", [file for file in FILES if file.stem.startswith("amsam")], ids=lambda file: file.stem)
def test_rows_of_amsam_draw_their_shots_and_see_as_many_as_their_epochs_are(file: Path) -> None:
    """The seed draws the shots; an epoch is half as many iterations as shots; all but Figure 5 have 100 epochs."""
    rows = read_rows(str(file))
    assert rows.seed_keys == ["SEED", "DATASETS.SHOTS_SEED"]
    for row in rows.trained.values():
        cfg = full_cfg()
        cfg.merge_from_file(row.config)
        cfg.merge_from_list(row.options)
        assert 2 * cfg.TEST.EVAL_PERIOD == cfg.DATASETS.SHOTS
        assert cfg.SOLVER.MAX_ITER == 50 * cfg.DATASETS.SHOTS or file.stem == "amsam_figure5"


@pytest.mark.parametrize("flag", ["--seeds", "--jobs"])
def test_none_at_all_is_refused(flag: str) -> None:
    """No seeds have no mean, and no jobs never end."""
    with pytest.raises(UserError, match=f"{flag} is 0; give at least 1"):
        ablation.main(["--rows", "configs/ablations/possam_embedded.yaml", "--output", "x", flag, "0"])
