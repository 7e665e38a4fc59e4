"""The papers' tables on the embedded world: they are the papers' rows, run once, and judged as the report says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from detectron2_sam.commands import reproduce
from detectron2_sam.commands.reproduce import runs
from detectron2_sam.commands.reproduce.report import judge, judge_all
from detectron2_sam.commands.reproduce.table import EMBEDDED, read_table
from sam_common.signals import StopFlag

TABLE = """
title: "Paper, Table 1: things"
of: larger
seeds: 2
config: c.yaml
metrics: [task/M, task/N]
untrained: {1 nothing: []}
trained: {2 more: [X, 1], 3 most: [X, 2]}
paper: {3 most: {"M, large": 50.5}}
orderings: [2 more > 1 nothing, 3 most > 2 more, 1 nothing > 3 most]
figure: {x: size, lines: {with: {2 more: 2, 3 most: 3}}}
remarks: [This is a remark.]
"""


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        ({0: 3.0, 1: 5.0}, {0: 1.0, 1: 2.0}, "holds"),  # differences 2 and 3: 2.5 ± 0.7
        ({0: 1.0, 1: 2.0}, {0: 3.0, 1: 5.0}, "does not hold"),
        ({0: 3.0, 1: 2.0}, {0: 1.0, 1: 2.0}, "not resolved"),  # 2 and 0: 1 ± 1.4
        ({0: 3.0, 1: 9.0}, {0: 2.0, 1: 8.0}, "holds"),  # seeds differ by 6, the rows of a seed by 1
        ({0: 3.0, 2: 0.0}, {0: 2.0, 1: 8.0}, "holds"),  # seed 0 is all that both have
        ({0: 2.0, 1: 2.0}, {0: 2.0, 1: 2.0}, "not resolved"),
        ({0: 2.04}, {0: 2.0}, "not resolved"),  # both are printed as 2.0
        ({}, {0: 2.0}, "not run"),
    ],
)
def test_an_ordering_is_judged_seed_by_seed(better: dict[int, float], worse: dict[int, float], verdict: str) -> None:
    """By the mean of the differences against their sample standard deviation; one difference decides by its sign."""
    assert judge(better, worse)[0] == verdict


def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, the paper's value where it is known, verdicts with differences by hand, remarks, the count, the command.

    M is 10·X + seed, and 5 without training: 2 more - 1 nothing is 10 + seed - 5 = 5 and 6.
    """

    def train(arguments: list[str], stop: StopFlag, threads: int) -> None:
        value = 5.0
        if "X" in arguments:
            value = 10.0 * int(arguments[arguments.index("X") + 1]) + int(arguments[arguments.index("SEED") + 1])
        folder = Path(arguments[arguments.index("OUTPUT_DIR") + 1]) / "inference" / "data"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"results": {"task": {"M": value, "N": None}}}))

    monkeypatch.setattr(runs, "train", train)
    monkeypatch.setattr(runs.Runner, "_find_lacking", lambda self, row: [])
    (tmp_path / "table.yaml").write_text(TABLE)
    given = ["--output", str(tmp_path / "out"), "--table", str(tmp_path / "table.yaml"), "--jobs", "2"]
    arguments = [*given, "--report", str(tmp_path / "out" / "reproduction.md"), "--device", "cpu"]
    assert reproduce.main(arguments) == 0
    text = (tmp_path / "out" / "reproduction.md").read_text()
    assert f"Written by `detectron2-sam reproduce {' '.join(arguments)}`" in text
    assert "Of 3 orderings 2 hold, 1 do not hold." in text
    assert text.endswith(
        f"""## Paper, Table 1: things

`{tmp_path}/table.yaml` on `c.yaml`; at the paper's size `larger`.

| row | paper: M, large | M | N |
| --- | --- | --: | --: |
| 1 nothing | – | 5.0 | – |
| 2 more | – | 10.5 ± 0.7 | – |
| 3 most | 50.5 | 20.5 ± 0.7 | – |

![Paper, Table 1: things](images/reproduction_table.svg)

- 2 more > 1 nothing: **holds**, +5.5 ± 0.7
- 3 most > 2 more: **holds**, +10.0 ± 0.0
- 1 nothing > 3 most: **does not hold**, -15.5 ± 0.7

This is a remark.
"""
    )
    assert "![Differences between rows](images/reproduction_orderings.svg)" in text
    drawn = [read_svg(tmp_path / f"out/images/reproduction_{name}.svg") for name in ("orderings", "table")]
    assert [words for words in drawn[0] if "±" in words] == ["+5.5 ± 0.7", "+10.0 ± 0.0", "-15.5 ± 0.7"]
    assert {"with", "size", "M"} <= set(drawn[1])
    links = [target.partition("#")[0] for target in re.findall(r"\]\((\S+?)\)", text)]
    assert len(links) == 4 and all((tmp_path / "out" / link).is_file() for link in links)
    capsys.readouterr()
    assert reproduce.main([*arguments, "--plan"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.startswith(" done  ")]) == 5 and "5 runs: 5 are done" in said[6]


def read_svg(path: Path) -> list[str]:
    """The words of a picture, which is well-formed."""
    return [element.text or "" for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_orderings_may_be_judged_in_several_metrics(tmp_path: Path) -> None:
    """Each has a verdict of its own, with its name."""
    (tmp_path / "table.yaml").write_text(TABLE + "judged: [task/M, task/N]")
    table = read_table(str(tmp_path / "table.yaml"))
    table = replace(table, seeds=1)
    results = {row: {"task/M": float(name[0]), "task/N": -float(name[0])} for name, row in table.rows.items()}
    first, second, *others = judge_all(table, results)
    assert first[:2] == ("2 more > 1 nothing, M", "holds") and f"{first.difference:+.1f}" == "+1.0"
    assert second[:2] == ("2 more > 1 nothing, N", "does not hold") and f"{second.difference:+.1f}" == "-1.0"
    assert sorted(made.verdict for made in others) == ["does not hold"] * 2 + ["holds"] * 2


def test_the_plan_fits_and_trains_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """Three seeds take less than three hours of two cores, as their files say.

    By hand: PosSAM's tables have 16 rows of which Table 4's last two, the method's own in 5 and 6 and all of Table 7
    are one training: 9. PLUG's have 8 that train, one twice: 7. AM-SAM's have 4, 14 and 6, of which two are Table 4's
    in each figure: 20.
    """
    tables = [read_table(name) for name in EMBEDDED]
    plan = runs.make_plan(tables)
    assert {table.seeds for table in tables} == {3}
    trainings = {row.training for row in plan if row.training.trains}
    assert len(trainings) == 3 * (9 + 7 + 20)
    assert sum(plan.values()) / 2 < 180
    assert reproduce.main(["--table", "embedded", "--output", "nowhere", "--plan", "--jobs", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len([line for line in out if "  detectron2-sam train --config-file " in line]) == len(plan)
    assert out[len(plan) + 1].endswith(f"about {sum(plan.values()) / 2:.0f} minutes with 2 side by side")
    assert not Path("nowhere").exists()


def test_the_report_in_the_docs_is_of_these_tables() -> None:
    """Every table, row and ordering that is run now is in it, and no other ordering."""
    report = Path(__file__).resolve().parents[4] / "docs" / "reproduction.md"
    sections = {text.partition("\n")[0]: text for text in report.read_text(encoding="utf-8").split("\n## ")[1:]}
    tables = {table.title: table for table in map(read_table, EMBEDDED)}
    assert sections.keys() == tables.keys()
    for title, table in tables.items():
        assert all(f"\n| {label} | " in sections[title] for label in table.rows)
        judged = [line[2:].partition(": **")[0] for line in sections[title].splitlines() if line.startswith("- ")]
        names = [f", {metric.partition('/')[2]}" for metric in table.judged] if len(table.judged) > 1 else [""]
        assert judged == [ordering + name for ordering in table.orderings for name in names]
