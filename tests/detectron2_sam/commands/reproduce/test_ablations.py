"""The papers' tables on the embedded world: they are the papers' rows, run once, and judged as the report says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from detectron2_sam.commands.reproduce import ablations, runs
from detectron2_sam.commands.reproduce.rows import Row, read_rows
from detectron2_sam.commands.reproduce.verdicts import judge, judge_all, read_table
from detectron2_sam.methods import full_cfg
from sam_common.config import CfgNode
from sam_common.engine.launch import StopFlag
from sam_common.errors import UserError

TABLE = """
title: "Paper, Table 1: things"
of: configs/ablations/real.yaml
config: c.yaml
metrics: [task/M, task/N]
untrained: {1 nothing: []}
trained: {2 more: [X, 1], 3 most: [X, 2]}
paper: {column: "M, large", rows: {3 most: 50.5}}
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

    def train_net(arguments: list[str], stop: StopFlag, threads: int) -> None:
        value = 5.0
        if "X" in arguments:
            value = 10.0 * int(arguments[arguments.index("X") + 1]) + int(arguments[arguments.index("SEED") + 1])
        folder = Path(arguments[arguments.index("OUTPUT_DIR") + 1]) / "inference" / "data"
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"results": {"task": {"M": value, "N": None}}}))

    monkeypatch.setattr(runs, "train_net", train_net)
    (tmp_path / "table.yaml").write_text(TABLE)
    arguments = [
        "--output",
        str(tmp_path / "out"),
        "--table",
        str(tmp_path / "table.yaml"),
        "--seeds",
        "2",
        "--jobs",
        "2",
    ]
    ablations.main(arguments)
    text = (tmp_path / "out" / "reproduction.md").read_text()
    assert f"Written by `python tools/ablations.py {' '.join(arguments)}`" in text
    assert "Of 3 orderings 2 hold, 1 do not hold." in text
    assert text.endswith(
        f"""## Paper, Table 1: things

`{tmp_path}/table.yaml` on `c.yaml`; at the paper's size `configs/ablations/real.yaml`.

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
    ablations.main([*arguments, "--plan"])
    assert capsys.readouterr().out == "0 runs, about 0 minutes with 2 side by side\n"  # everything is complete


def read_svg(path: Path) -> list[str]:
    """The words of a picture, which is well-formed."""
    return [element.text or "" for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_orderings_may_be_judged_in_several_metrics(tmp_path: Path) -> None:
    """Each has a verdict of its own, with its name."""
    (tmp_path / "table.yaml").write_text(TABLE + "judged: [task/M, task/N]")
    table = read_table(str(tmp_path / "table.yaml"))
    cells = {runs.find_cell(table.rows, label, "", 0): label for label in table.rows.labels}
    results = {cell: {"task/M": float(label[0]), "task/N": -float(label[0])} for cell, label in cells.items()}
    first, second, *others = judge_all(table, results, 1)
    assert (first.name, first.verdict, first.differences) == ("2 more > 1 nothing, M", "holds", [1.0])
    assert (second.name, second.verdict, second.differences) == ("2 more > 1 nothing, N", "does not hold", [-1.0])
    assert sorted(made.verdict for made in others) == ["does not hold"] * 2 + ["holds"] * 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title:", "# title:", "it needs a title"),
        ("metrics:", "tested: {a: [], b: [X, 1]}\nmetrics:", "and no `tested`"),
        ("3 most > 2 more", "3 most > 4 all", "BETTER > WORSE, not '3 most > 4 all'"),
        ("3 most > 2 more", "3 most", "BETTER > WORSE, not '3 most'"),
        ("rows: {3 most:", "rows: {most:", "must be labels of rows, most is none"),
        ("{2 more: 2,", "{most: 2,", "a figure's points must be labels of rows, most is none"),
        ("x: size, ", "", "figure is told by lines and x"),
        ("{2 more: 2,", "{2 more: two,", "a figure gives labels of rows numbers"),
        ('column: "M, large", ', "", "paper is told by column and rows"),
        ("[This is a remark.]", "a remark", "orderings, judged and remarks are lists"),
        ("{2 more: [X, 1],", "{1 nothing: [], 2 more: [X, 1],", "1 nothing is in trained and in untrained"),
        ("remarks:", "judged: [task/O]\nremarks:", "must be among the metrics, not task/O"),
    ],
)
def test_a_wrong_table_is_one_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    """What is no table of a paper, and labels that no row has."""
    (tmp_path / "table.yaml").write_text(TABLE.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        read_table(str(tmp_path / "table.yaml"))
    assert "\n" not in str(caught.value)


def test_the_plan_fits_and_trains_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """Three seeds take less than three hours of two cores, as their files say.

    By hand: PosSAM's tables have 16 rows of which Table 4's last two, the method's own in 5 and 6 and all of Table 7
    are one training: 9. PLUG's have 8 that train, one twice: 7. AM-SAM's have 4, 14 and 6, of which two are Table 4's
    in each figure: 20.
    """
    plan = runs.make_plan([read_table(path).rows for path in ablations.TABLES], seeds=3)
    trainings = {cell.training for cell in plan if cell.training.trains}
    assert len(trainings) == 3 * (9 + 7 + 20)
    assert sum(plan.values()) / 2 < 180
    ablations.main(["--output", "nowhere", "--plan", "--jobs", "2"])
    out = capsys.readouterr().out.splitlines()
    assert len(out) == len(plan) + 1 and out[-1].endswith("minutes with 2 side by side")
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("path", ablations.TABLES, ids=lambda path: Path(path).stem)
def test_tables_have_the_rows_of_the_papers(path: str) -> None:
    """The same labels, and for each the same model and boxes as at the paper's size, but for what all rows share."""
    table = read_table(path)
    here, there = table.rows, read_rows(table.of)
    ours, papers = here.trained | here.untrained, there.trained | there.untrained
    variants = {label: [name for name in papers if name == label or name.startswith(f"{label}, ")] for label in ours}
    assert sorted(name for names in variants.values() for name in names) == sorted(papers)
    whole = {label: _read(row) for label, row in ours.items()}
    full = {name: _read(row) for name, row in papers.items()}
    changing = {key for flats in (whole, full) for key in _differing(list(flats.values()))}
    for label, names in variants.items():
        for name in names:
            assert {key: str(whole[label][key]) for key in changing} == {key: str(full[name][key]) for key in changing}


def test_the_report_in_the_docs_is_of_these_tables() -> None:
    """Every table, row and ordering that is run now is in it, and no other ordering."""
    report = Path(__file__).resolve().parents[4] / "docs" / "reproduction.md"
    sections = {text.partition("\n")[0]: text for text in report.read_text(encoding="utf-8").split("\n## ")[1:]}
    tables = {table.title: table for table in map(read_table, ablations.TABLES)}
    assert sections.keys() == tables.keys()
    for title, table in tables.items():
        assert all(f"\n| {label} | " in sections[title] for label in table.rows.labels)
        judged = [line[2:].partition(": **")[0] for line in sections[title].splitlines() if line.startswith("- ")]
        names = [f", {metric.partition('/')[2]}" for metric in table.judged] if len(table.judged) > 1 else [""]
        assert judged == [" > ".join(ordering) + name for ordering in table.orderings for name in names]


def _read(row: Row) -> dict[str, object]:
    """What tells a row from others: its keys of the model and of the boxes, and how many epochs it trains."""
    cfg = full_cfg()
    cfg.merge_from_file(row.config)
    cfg.merge_from_list(row.options)
    kept = {f"MODEL.{key}": value for key, value in _flat(cfg.MODEL).items()}
    if cfg.MODEL.POSSAM.DECODER.NAME == "masked":  # Table 6: it is smaller here, the two-way decoders are not
        kept["MODEL.POSSAM.DECODER.NUM_LAYERS"] = "the size's own"
    return {**kept, "SELECT": cfg.INPUT.BOXES.SELECT, "EPOCHS": cfg.SOLVER.MAX_ITER / cfg.DATASETS.SHOTS}


def _flat(node: CfgNode, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {f"{prefix}{key}": value}
    return flat


def _differing(flats: list[dict[str, object]]) -> set[str]:
    """Keys that do not have one value in all rows of a table."""
    return {key for key in flats[0] if len({str(flat[key]) for flat in flats}) > 1}
