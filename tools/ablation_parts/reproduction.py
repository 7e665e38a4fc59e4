"""The report of `tools/ablations.py`: for each table of a paper its rows as they came out here, what the paper prints,
and whether what it concludes holds.

A conclusion is an ordering of two rows, "better > worse", in the first metric or those that the table names. Rows with
the same seed see the same images in the same order, so differences are taken seed by seed: d ± s, mean and sample
standard deviation. It *holds* where d > s, *does not hold* where d < -s, and is *not resolved* between, and where d
rounds to 0.0.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from sam_common.errors import UserError
from tools.ablation_parts.rows import Rows, read_rows
from tools.ablation_parts.runs import Cell, Metrics
from tools.ablation_parts.tables import as_markdown, by_seed, column_names, mean_and_deviation, values

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
    remarks: Sequence[str]


def read_table(path: str, more: Sequence[str] = ()) -> Table:
    """Reads an ablation that is a table of a paper; `more` overrides every row.

    Raises:
        UserError: as `read_rows`, or it tells no title, or of a row that it does not have.
    """
    rows = read_rows(path, more)
    about, paper = rows.about, rows.about.get("paper", {})
    if not all(isinstance(about.get(key), str) for key in ("title", "of")) or len(rows.tested) != 1:
        raise UserError(f"{path} is no table of a paper: it needs a title, the file that it is `of`, and no `tested`")
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
    column, remarks = str(paper.get("column", "")), list(about.get("remarks", []))
    return Table(path, rows, about["title"], about["of"], column, printed, orderings, judged, remarks)


def judge(better: Mapping[int, float], worse: Mapping[int, float]) -> tuple[str, list[float]]:
    """The verdict on an ordering, and the differences it rests on.

    Args: values by seed; seeds that only one of them has are left out. A single seed has no spread: its sign decides.
    """
    differences = [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]
    if not differences:
        return MISSING, []
    mean, spread = statistics.mean(differences), statistics.stdev(differences) if len(differences) > 1 else 0.0
    if abs(mean) <= max(spread, _ROUNDING):
        return OPEN, differences
    return HOLDS if mean > 0 else FAILS, differences


def write_section(table: Table, results: Mapping[Cell, Metrics], seeds: int) -> tuple[str, Counter[str]]:
    """A table in Markdown with the verdicts on its orderings, and how often each verdict is given."""
    rows, tested = table.rows, next(iter(table.rows.tested))

    names = column_names(rows.metrics)
    paper = [f"paper: {table.column}"] if table.printed else []
    lines = [["row", *paper, *names], ["---", *["---"] * len(paper), *["--:"] * len(names)]]
    for label in rows.labels:
        printed = [table.printed.get(label, "–")] if paper else []
        numbers = (values(results, rows, label, tested, metric, seeds) for metric in rows.metrics)
        lines.append([label, *printed, *map(mean_and_deviation, numbers)])
    verdicts: Counter[str] = Counter()
    points = []
    for (better, worse), metric in product(table.orderings, table.judged):
        verdict, differences = judge(
            *(by_seed(results, rows, label, tested, metric, seeds) for label in (better, worse))
        )
        verdicts[verdict] += 1
        where = f", {column_names(rows.metrics)[rows.metrics.index(metric)]}" if len(table.judged) > 1 else ""
        points.append(f"- {better} > {worse}{where}: **{verdict}**{_signed(differences)}")
    configs = " and ".join(f"`{config}`" for config in dict.fromkeys(row.config for row in rows.trained.values()))
    text = [f"## {table.title}", f"`{table.file}` on {configs}; at the paper's size `{table.of}`.", as_markdown(lines)]
    text += ["\n".join(points)] if points else []
    return "\n\n".join([*text, *table.remarks]), verdicts


def _signed(differences: Sequence[float]) -> str:
    """The mean difference with its sign, ± where there are several."""
    if not differences:
        return ""
    mean = f"{statistics.mean(differences):+.1f}"
    return f", {mean} ± {statistics.stdev(differences):.1f}" if len(differences) > 1 else f", {mean}"


def write_report(tables: Sequence[Table], results: Mapping[Cell, Metrics], seeds: int, command: str) -> str:
    """All tables in Markdown, the count of verdicts first."""
    sections = [write_section(table, results, seeds) for table in tables]
    total = sum((verdicts for _, verdicts in sections), Counter())
    counted = [f"{total[verdict]} {what}" for verdict, what in _COUNTED if total[verdict]]
    count = f"Of {sum(total.values())} orderings {', '.join(counted)}."
    return (
        "\n\n".join([_HEAD.format(command=command, seeds=seeds, count=count), *(text for text, _ in sections)]) + "\n"
    )


_COUNTED = ((HOLDS, "hold"), (FAILS, "do not hold"), (OPEN, "are not resolved"), (MISSING, "were not run"))

_HEAD = """# The papers' ablations on the embedded world

Written by `{command}`. Numbers are means over the seeds ± the sample standard deviation; seeds: {seeds}.

**They say nothing about photographs.** The encoders are the tiny ones that ship with the project, the scenes are drawn,
the trainings are short ([the world](architecture.md#the-generated-world), [the models](../weights/README.md)). No
number is comparable with a paper's. What can be compared is which row is better, and that is a property of this world
as well: an ordering that does not hold here may hold on COCO, and the other way round.

The column *paper* has what is printed, where that is known: the main results, which are the methods' own rows, and some
others. The numbers of the other rows are not in the texts that this project was written from, nor is by how much they
differ. The orderings are what the papers argue for: that each part of a method helps, and that its choices are best.

An ordering *holds* where its better row is ahead by more than the standard deviation of the difference over the seeds,
*does not hold* where it is behind by more, and is *not resolved* between, and where both print the same. Differences
are in the first metric where no other is named.

{count}"""
