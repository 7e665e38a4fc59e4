"""The report of `tools/ablations.py`: for each table of a paper its rows as they came out here, what the paper prints,
and whether what it concludes holds.

A conclusion is an ordering of two rows, "better > worse", in the first metric or those that the table names. Rows with
the same seed see the same images in the same order, so differences are taken seed by seed: d ± s, mean and sample
standard deviation. It *holds* where d > s, *does not hold* where d < -s, and is *not resolved* between, and where d
rounds to 0.0.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from detectron2_sam.commands.reproduce.drawing import Difference, Point, draw_differences, draw_lines
from detectron2_sam.commands.reproduce.rows import Rows, read_rows
from detectron2_sam.commands.reproduce.runs import Cell, Metrics
from detectron2_sam.commands.reproduce.tables import (
    as_markdown,
    by_seed,
    column_names,
    deviation,
    mean_and_deviation,
    values,
)
from sam_common.errors import UserError
from sam_common.io.files import write_text

HOLDS, FAILS, OPEN, MISSING = "holds", "does not hold", "not resolved", "not run"
_ROUNDING = 0.05  # what is printed has one digit


@dataclass(frozen=True)
class Table:
    """A table or a figure of a paper.

    Attributes:
        file: where it is read from.
        rows: tested in one way.
        title: of the paper's table.
        of: the file of the same rows at the paper's size.
        column: what `printed` is of.
        printed: label -> what the paper has, where that is known.
        orderings: (better, worse) labels.
        judged: the metrics in which they are.
        figure: a line chart of the first metric, `x` the name of its axis, `lines` name -> {label: x}; or nothing.
        remarks: sentences that are added.
    """

    file: str
    rows: Rows
    title: str
    of: str
    column: str
    printed: Mapping[str, str]
    orderings: Sequence[tuple[str, str]]
    judged: Sequence[str]
    figure: Mapping[str, Any]
    remarks: Sequence[str]


def read_table(path: str, more: Sequence[str] = ()) -> Table:
    """Reads an ablation that is a table of a paper; `more` overrides every row.

    Raises:
        UserError: as `read_rows`, or it tells no title, or of a row that it does not have.
    """
    rows = read_rows(path, more)
    about = rows.about
    paper, figure = about.get("paper", {}), about.get("figure", {})
    if not all(isinstance(about.get(key), str) for key in ("title", "of")) or len(rows.tested) != 1:
        raise UserError(f"{path} is no table of a paper: it needs a title, the file that it is `of`, and no `tested`")
    for name, node, keys in (("paper", paper, {"column", "rows"}), ("figure", figure, {"x", "lines"})):
        if not isinstance(node, dict) or (node and node.keys() != keys):
            raise UserError(f"{path}: {name} is told by {' and '.join(sorted(keys))}")
    if not all(isinstance(about.get(name, []), list) for name in ("orderings", "judged", "remarks")):
        raise UserError(f"{path}: orderings, judged and remarks are lists")
    orderings = []
    for ordering in about.get("orderings", []):
        better, separator, worse = str(ordering).partition(" > ")
        if not separator or not {better, worse} <= set(rows.labels):
            raise UserError(f"{path}: an ordering is two labels of rows, BETTER > WORSE, not {ordering!r}")
        orderings.append((better, worse))
    printed = {str(label): str(value) for label, value in paper.get("rows", {}).items()}
    if strange := printed.keys() - set(rows.labels):
        raise UserError(f"{path}: the paper's rows must be labels of rows, {', '.join(strange)} is none")
    judged = [str(metric) for metric in about.get("judged", rows.metrics[:1])]
    if not set(judged) <= set(rows.metrics):
        raise UserError(f"{path}: what is judged must be among the metrics, not {', '.join(judged)}")
    points = {label: x for line in figure.get("lines", {}).values() for label, x in line.items()}
    if strange := points.keys() - set(rows.labels):
        raise UserError(f"{path}: a figure's points must be labels of rows, {', '.join(map(str, strange))} is none")
    if not all(isinstance(x, int | float) for x in points.values()):
        raise UserError(f"{path}: a figure gives labels of rows numbers, the x of their points")
    column, remarks = str(paper.get("column", "")), list(about.get("remarks", []))
    return Table(path, rows, about["title"], about["of"], column, printed, orderings, judged, figure, remarks)


@dataclass(frozen=True)
class Judgement:
    """What has come out of an ordering.

    Attributes:
        name: BETTER > WORSE, with the metric where a table is judged in several.
        verdict: one of the four.
        differences: what it rests on, a seed each.
    """

    name: str
    verdict: str
    differences: Sequence[float]


def judge(better: Mapping[int, float], worse: Mapping[int, float]) -> tuple[str, list[float]]:
    """The verdict on an ordering, and the differences it rests on.

    Args: values by seed; seeds that only one of them has are left out. A single seed has no spread: its sign decides.
    """
    differences = [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]
    if not differences:
        return MISSING, []
    mean = statistics.mean(differences)
    if abs(mean) <= max(deviation(differences), _ROUNDING):
        return OPEN, differences
    return HOLDS if mean > 0 else FAILS, differences


def judge_all(table: Table, results: Mapping[Cell, Metrics], seeds: int) -> list[Judgement]:
    """Every ordering of a table in every metric that it is judged in."""
    rows, tested = table.rows, next(iter(table.rows.tested))
    judgements = []
    for ordering, metric in product(table.orderings, table.judged):
        verdict, differences = judge(*(by_seed(results, rows, label, tested, metric, seeds) for label in ordering))
        where = f", {column_names(rows.metrics)[rows.metrics.index(metric)]}" if len(table.judged) > 1 else ""
        judgements.append(Judgement(" > ".join(ordering) + where, verdict, differences))
    return judgements


def write_section(
    table: Table, results: Mapping[Cell, Metrics], seeds: int, judgements: Sequence[Judgement], picture: str = ""
) -> str:
    """A table in Markdown with the verdicts on its orderings, and `picture` of its figure."""
    rows, tested = table.rows, next(iter(table.rows.tested))
    paper = [f"paper: {table.column}"] if table.printed else []
    lines = [["row", *paper, *column_names(rows.metrics)], ["---", *["---"] * len(paper), *["--:"] * len(rows.metrics)]]
    for label in rows.labels:
        printed = [table.printed.get(label, "–")] if paper else []
        numbers = (values(results, rows, label, tested, metric, seeds) for metric in rows.metrics)
        lines.append([label, *printed, *map(mean_and_deviation, numbers)])
    points = [f"- {made.name}: **{made.verdict}**{_signed(made)}" for made in judgements]
    configs = " and ".join(f"`{config}`" for config in dict.fromkeys(row.config for row in rows.trained.values()))
    text = [f"## {table.title}", f"`{table.file}` on {configs}; at the paper's size `{table.of}`.", as_markdown(lines)]
    text += [f"![{table.title}]({picture})"] if picture else []
    text += ["\n".join(points)] if points else []
    return "\n\n".join([*text, *table.remarks])


def _signed(made: Judgement) -> str:
    """The mean difference with its sign, ± where there are several."""
    if not made.differences:
        return ""
    mean = f"{statistics.mean(made.differences):+.1f}"
    return f", {mean} ± {deviation(made.differences):.1f}" if len(made.differences) > 1 else f", {mean}"


def write_report(
    path: Path, tables: Sequence[Table], results: Mapping[Cell, Metrics], seeds: int, command: str
) -> None:
    """All tables in Markdown, the count of verdicts first; pictures go to `images` beside the file."""

    def draw(name: str, svg: str) -> str:
        target = path.parent / "images" / f"{path.stem}_{name}.svg"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, svg)
        return f"images/{target.name}"

    judgements = {table.title: judge_all(table, results, seeds) for table in tables}
    total = Counter(made.verdict for group in judgements.values() for made in group)
    counted = [f"{total[verdict]} {what}" for verdict, what in _COUNTED if total[verdict]]
    overview = draw("orderings", draw_differences({title: _drawn(group) for title, group in judgements.items()}))
    head = _HEAD.format(
        **{name: os.path.relpath(target, path.parent) for name, target in _LINKED.items()},
        command=command,
        seeds=seeds,
        count=f"Of {total.total()} orderings {', '.join(counted)}.",
        overview=overview,
    )
    sections = []
    for table in tables:
        lines = _lines(table, results, seeds)
        metric = column_names(table.rows.metrics)[0]
        picture = draw(Path(table.file).stem, draw_lines(lines, str(table.figure["x"]), metric)) if lines else ""
        sections.append(write_section(table, results, seeds, judgements[table.title], picture))
    write_text(path, "\n\n".join([head, *sections]) + "\n")


def _drawn(group: Sequence[Judgement]) -> list[Difference]:
    return [
        Difference(made.name, statistics.mean(made.differences), deviation(made.differences), made.verdict != OPEN)
        for made in group
        if made.differences
    ]


def _lines(table: Table, results: Mapping[Cell, Metrics], seeds: int) -> dict[str, list[Point]]:
    """The lines of a figure, without points that were not run."""
    rows, tested = table.rows, next(iter(table.rows.tested))
    lines: dict[str, list[Point]] = {}
    for name, labels in table.figure.get("lines", {}).items():
        for label, x in labels.items():
            if found := values(results, rows, label, tested, rows.metrics[0], seeds):
                lines.setdefault(str(name), []).append((float(x), statistics.mean(found), deviation(found)))
    return lines


_COUNTED = ((HOLDS, "hold"), (FAILS, "do not hold"), (OPEN, "are not resolved"), (MISSING, "were not run"))

_ROOT = Path(__file__).resolve().parents[3]
_LINKED = {"world": _ROOT / "docs" / "architecture.md", "models": _ROOT / "weights" / "README.md"}
_HEAD = """# The papers' ablations on the embedded world

Written by `{command}`. Numbers are means over the seeds ± the sample standard deviation; seeds: {seeds}.

**They say nothing about photographs.** The encoders are the tiny ones that ship with the project, the scenes are drawn,
the trainings are short ([the world]({world}#the-generated-world), [the models]({models})). No
number is comparable with a paper's. What can be compared is which row is better, and that is a property of this world
as well: an ordering that does not hold here may hold on COCO, and the other way round.

The column *paper* has what is printed, where that is known: the main results, which are the methods' own rows, and some
others. The numbers of the other rows are not in the texts that this project was written from, nor is by how much they
differ. The orderings are what the papers argue for: that each part of a method helps, and that its choices are best.

An ordering *holds* where its better row is ahead by more than the standard deviation of the difference over the seeds,
*does not hold* where it is behind by more, and is *not resolved* between, and where both print the same. Differences
are in the first metric where no other is named.

{count} In the picture what lies to the right of 0 is as the paper has it; the bar is the standard deviation.

![Differences between rows]({overview})"""
