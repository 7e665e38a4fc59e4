"""The command: every table tells what it needs; what can be run is run, and stands beside the paper."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from amsam.data.worms import write_worms
from detectron2_sam import program
from detectron2_sam.commands import reproduce
from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.reproduce import runs
from detectron2_sam.commands.reproduce.table import read_table, table_names
from sam_common.data import catalog
from sam_common.errors import UserError
from sam_common.signals import StopFlag

ROOT = Path(__file__).resolve().parents[4]

SMALL = """
title: Worms, few shots
source: nowhere
seeds: 2
config: configs/amsam_T.yaml
metrics: [few_shot/Dice, few_shot/IoU]
seed_keys: [SEED, DATASETS.SHOTS_SEED]
untrained:
  "the box": [MODEL.META_ARCHITECTURE, BoxRectangle]
trained:
  "AM-SAM": []
tested:
  worms: []
  "the same worms": [DATASETS.TEST, "('generated_worms_train',)"]
paper:
  the box, worms: {few_shot/Dice: "12.30", few_shot/IoU: 4.5}
"""
OPTIONS = ("MODEL.AMSAM.IMAGE_SIZE", "64", "DATASETS.SHOTS", "2", "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "1")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of data sets, and a catalog that looks there."""
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs are made in this process; the list has what each was given."""
    given: list[list[str]] = []

    def run(arguments: list[str], stop: StopFlag, threads: int | None) -> None:
        given.append(arguments)
        train_net.main(arguments)

    monkeypatch.setattr(runs, "train", run)
    return given


def write_table(root: Path, text: str = SMALL) -> str:
    (root / "worms.yaml").write_text(text)
    return str(root / "worms.yaml")


def start(root: Path, *more: str) -> int:
    return reproduce.main(["--table", write_table(root), "--output", str(root / "out"), "--device", "cpu", *more])


def draw(root: Path, split: str) -> None:
    write_worms(root / f"data/generated/worms_{split}", seed=0, first_index=0, count=3, size=64)


def test_they_are_all_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """By the names that --table takes, which are of every table that ships and of all on the embedded world."""
    assert reproduce.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["embedded", *table_names()]


@pytest.mark.parametrize(
    ("tool", "given", "made"),
    [
        ("reproduce", ["--table", "x"], ["--table", "x"]),
        ("ablation", ["--rows", "x"], ["--device", "cpu", "--rows", "x"]),
        ("ablations", ["--plan"], ["--device", "cpu", "--table", "embedded", "--plan"]),
        ("ablations", ["--table", "x", "--table=y"], ["--device", "cpu", "--table", "x", "--table=y"]),
        ("ablations", ["--table=x"], ["--device", "cpu", "--table=x"]),
    ],
)
def test_three_tools_are_this_command(
    tool: str, given: list[str], made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With defaults of their own, before what is given so that it wins; --rows is --table."""
    started: list[list[str]] = []
    monkeypatch.setattr(program, "main", started.append)
    monkeypatch.setattr(sys, "argv", [f"tools/{tool}.py", *given])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "tools" / f"{tool}.py"), run_name="__main__")
    assert started == [["reproduce", *made]]
    assert set(reproduce.parse(made).table) <= {"embedded", "x", "y"}


@pytest.mark.parametrize("name", [name for name in table_names() if read_table(name).source])
def test_every_table_says_what_it_needs(name: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without data: each configuration is read, and every missing thing comes with where it is to be had."""
    assert reproduce.main(["--table", name, "--plan", "--seeds", "1", "--output", str(root / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    commands = [line for line in said if "detectron2-sam train" in line]
    assert commands and all(line.startswith("lacks  detectron2-sam train --config-file ") for line in commands)
    findings = [line for line in said if line.startswith("  !! ")]
    fixes = [line for line in said if line.startswith("     → ")]
    assert len(findings) == len(fixes) >= 2 and all("https://" in fix or "http://" in fix for fix in fixes)
    assert any(finding.split()[1].startswith("sam_vit_") for finding in findings)
    rows = [line for line in said if line.startswith("| ")]
    assert len(rows) == 2 + len(read_table(name).rows)
    assert not (root / "out").exists()


def test_a_table_from_nothing_to_its_numbers(root: Path, commands: list[list[str]], capsys) -> None:
    """The embedded world, in three steps: nothing can be run without data; with the pictures to test on, what is not
    trained is tested; with all of them, both seeds are trained and tested on both, and nothing is run twice."""
    assert start(root, *OPTIONS) == 1
    said = capsys.readouterr().out
    assert commands == [] and "6 runs: 6 wait for what is missing" in said
    assert "→ detectron2-sam prepare generated" in said and "| the box, worms | 12.30 | – | 4.5 | – |" in said

    draw(root, "test")
    assert start(root, *OPTIONS) == 1
    said = capsys.readouterr().out
    assert ["--eval-only" in command for command in commands] == [True]
    assert "1 can be run, 5 wait for what is missing" in said

    draw(root, "train")
    assert start(root, *OPTIONS) == 0
    said = capsys.readouterr().out
    assert sum("--resume" in command for command in commands) == 2 and len(commands) == 6
    assert "1 are done, 5 can be run" in said
    tests = [command for command in commands[1:] if "--eval-only" in command]
    weights = [command[command.index("MODEL.WEIGHTS") + 1] for command in tests if "MODEL.WEIGHTS" in command]
    assert [Path(path).name for path in weights] == ["model_best.pth"] * 2  # those that the training tested
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == [
        *("| the box, worms", "| the box, the same worms", "| AM-SAM, worms", "| AM-SAM, the same worms")
    ]
    assert len(rows[2][2].partition(".")[2]) == 2 and "±" not in rows[2][2] and "±" in rows[4][2]  # digits, seeds
    results = next((root / "out").glob("amsam_T-*BoxRect*/inference/generated_worms_test/results.json"))
    dice = json.loads(results.read_text())["results"]["few_shot"]["Dice"]
    assert rows[2][2] == f"{dice:.2f}"
    assert "| the box, worms | 12.30 | " in (root / "out/worms.md").read_text()

    commands.clear()
    assert start(root, *OPTIONS) == 0 and commands == [] and "6 runs: 6 are done" in capsys.readouterr().out

    file = next((root / "out").glob("*-seed1/config.yaml"))
    file.write_text(file.read_text().replace("MAX_ITER: 2", "MAX_ITER: 3"))
    with pytest.raises(UserError, match=r"was run with other settings \(SOLVER.MAX_ITER 3, now 2\)"):
        start(root, *OPTIONS)  # what it printed would not be of these rows


def test_weights_from_elsewhere_are_only_tested(root: Path, commands: list[list[str]], capsys) -> None:
    """A model_final.pth in the folder of a training: its own training data are not needed, and it is not trained."""
    draw(root, "train")
    draw(root, "test")
    start(root, "--seeds", "1", *OPTIONS)
    (folder,) = (path.parent for path in (root / "out").glob("*/model_final.pth"))
    for path in folder.iterdir():
        if path.name != "model_final.pth":
            path.rename(root / f"away_{path.name}")
    commands.clear()
    capsys.readouterr()
    assert start(root, "--seeds", "1", *OPTIONS) == 0
    assert len(commands) == 2 and all("--eval-only" in command for command in commands)
    assert commands[0][-2:] == ["MODEL.WEIGHTS", str(folder / "model_final.pth")]


def test_official_weights_are_downloaded_by_the_run(root: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """They are told as missing, and do not keep a run from beginning; a file of one's own that is not there does."""
    draw(root, "train")
    draw(root, "test")
    given: list[list[str]] = []
    monkeypatch.setattr(runs, "train", lambda arguments, stop, threads: given.append(arguments))
    size_b = ("MODEL.SAM.SIZE", "B", "MODEL.SAM.WEIGHTS", "sam_vit_b")
    assert start(root, "--plan", *size_b) == 0
    said = capsys.readouterr().out
    assert "6 runs: 6 can be run" in said and "!! sam_vit_b" in said and "https://dl.fbaipublicfiles.com" in said
    assert start(root, *size_b) == 1 and len(given) == 4  # all but the tests of weights, which nobody trained here
    assert start(root, "--plan", "MODEL.SAM.WEIGHTS", str(root / "gone.pth")) == 0
    assert "6 runs: 6 wait for what is missing" in capsys.readouterr().out


def test_a_test_waits_for_what_its_training_lacks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the pictures to test on but none to train on, no test of trained weights can be run."""
    draw(root, "test")
    table = SMALL.replace("[DATASETS.TEST, \"('generated_worms_train',)\"]", "[MODEL.AMSAM.ALPHA, 0.5]")
    assert reproduce.main(["--table", write_table(root, table), "--output", str(root / "out"), "--plan"]) == 0
    assert "6 runs: 2 can be run, 4 wait for what is missing" in capsys.readouterr().out


def test_a_run_that_fails_does_not_stop_the_others(root: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """What failed is told at the end; tests of a training that failed are not begun; the status is 1."""
    draw(root, "train")
    draw(root, "test")
    given: list[list[str]] = []

    def fail(arguments: list[str], stop: StopFlag, threads: int | None) -> None:
        given.append(arguments)
        raise UserError(f"run {len(given)} failed")

    monkeypatch.setattr(runs, "train", fail)
    assert start(root, "--num-gpus", "4", "--jobs", "1", *OPTIONS) == 1
    assert capsys.readouterr().err.splitlines() == [f"error: run {number} failed" for number in (1, 2, 3, 4)]
    assert all(command[5:7] == ["--num-gpus", "4"] for command in given)
    assert sum("MODEL.WEIGHTS" in command for command in given) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "possam-9"], "there is no table 'possam-9'; choose one of embedded, ablation-amsam, "),
        (["--table", "possam-1", "--seeds", "0"], "--seeds is 0; give at least 1"),
        (["--table", "possam-1", "SEED"], "KEY VALUE pairs, got 1 words"),
        (["--table", "nowhere.yaml"], "there is no configuration file nowhere.yaml"),
        ([], "one of the arguments --table/--rows --list is required"),
    ],
)
def test_mistakes_on_the_command_line(arguments: list[str], message: str) -> None:
    """Error: one line that says what to give."""
    with pytest.raises(UserError, match=message):
        reproduce.main(arguments)
