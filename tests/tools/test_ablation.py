"""The ablation runner: which commands it runs, what it reuses, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sam_common.errors import UserError
from tools import ablation
from tools.methods import full_cfg

ABLATIONS = Path(__file__).resolve().parents[2] / "configs" / "ablations"

ROWS = """
config: c.yaml
metrics: [panoptic_seg/PQ, segm/AP]
trained: {a: [], b: [X, 1]}
tested: {mase: [E, mase], clip: [E, clip]}
"""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for training: records the command and leaves results whose PQ is 10·seed, +1 for row b, +2 for clip."""
    seen: list[list[str]] = []

    def train_net(arguments: list[str]) -> None:
        seen.append(arguments)
        value = 10.0 * int(arguments[arguments.index("SEED") + 1]) + ("X" in arguments) + 2 * ("clip" in arguments)
        folder = Path(arguments[arguments.index("OUTPUT_DIR") + 1]) / "inference" / "data"
        folder.mkdir(parents=True)
        results = {"panoptic_seg": {"PQ": value}, "segm": {"AP": value / 2 if "X" in arguments else None}}
        (folder / "results.json").write_text(json.dumps({"results": results}))

    monkeypatch.setattr(ablation, "train_net", train_net)
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
    (tmp_path / "out" / "a-seed0").mkdir(parents=True)
    (tmp_path / "out" / "a-seed0" / "model_best.pth").touch()
    run(tmp_path, "{config: c.yaml, metrics: [a/b], trained: {a: []}, tested: {x: [], y: [E, 1]}}")
    weights = [Path(c[c.index("MODEL.WEIGHTS") + 1]) for c in commands if "MODEL.WEIGHTS" in c]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in weights] == [
        "a-seed0/model_best.pth",
        "a-seed1/model_final.pth",
    ]


def test_no_label_leads_out_of_the_folder(commands: list[list[str]], tmp_path: Path) -> None:
    """Runs are written below --output, whatever the rows are called."""
    run(tmp_path, "{config: c.yaml, metrics: [a/b], trained: {../x: []}, tested: {../../y: [], /z: []}}")
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
    ],
)
def test_a_wrong_rows_file_is_one_line(rows: str, message: str, tmp_path: Path) -> None:
    """What means nothing is named, not ignored."""
    (tmp_path / "rows.yaml").write_text(rows)
    with pytest.raises(UserError, match=message) as caught:
        ablation.read_rows(str(tmp_path / "rows.yaml"))
    assert "\n" not in str(caught.value)


FILES = sorted(path for path in ABLATIONS.glob("*.yaml") if "metrics" in yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_rows_are_configurations(file: Path) -> None:
    """Every row of every shipped file merges into a configuration, and no two rows are the same."""
    rows, seen = ablation.read_rows(str(file)), []
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
    files = [ablation.read_rows(str(file)) for file in FILES]
    named = {row.config for rows in files for row in (rows.trained | rows.untrained).values()}
    shipped = {f"configs/ablations/{path.name}" for path in ABLATIONS.glob(tables)}
    assert len(shipped) == count and shipped <= named


@pytest.mark.parametrize("file", [file for file in FILES if file.stem.startswith("amsam")], ids=lambda file: file.stem)
def test_rows_of_amsam_draw_their_shots_and_see_as_many_as_their_epochs_are(file: Path) -> None:
    """The seed draws the shots; an epoch is half as many iterations as shots; all but Figure 5 have 100 epochs."""
    rows = ablation.read_rows(str(file))
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
