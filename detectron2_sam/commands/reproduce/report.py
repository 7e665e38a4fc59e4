"""What runs have shown: the rows of each table, beside what the paper prints, and whether what it concludes holds.

A conclusion is an ordering of two rows, "better > worse", in the first metric or those that the table names. Rows with
the same seed see the same images in the same order, so differences are taken seed by seed: d ± s, mean and sample
standard deviation. It *holds* where d > s, *does not hold* where d < -s, and is *not resolved* between, and where d
rounds to 0.0.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from detectron2_sam.commands.reproduce.drawing import Difference, Point, draw_differences, draw_lines
from detectron2_sam.commands.reproduce.runs import Metrics
from detectron2_sam.commands.reproduce.table import Row, Table
from sam_common.io.files import write_text
from sam_common.reporting.page import Spread

Results = Mapping[Row, Metrics]
HOLDS, FAILS, OPEN, MISSING = "holds", "does not hold", "not resolved", "not run"
_COUNTED = {HOLDS: "hold", FAILS: "do not hold", OPEN: "are not resolved", MISSING: "were not run"}
_ROUNDING = 0.05  # what is printed has one digit
_NONE = "–"


def by_seed(table: Table, results: Results, name: str, metric: str) -> dict[int, float]:
    """Seed -> a metric of a row, where it is a number; what is not trained has the same one with every seed."""
    found = {seed: results[table.rows[name].at(seed)] for seed in range(table.seeds)}
    return {seed: metrics[metric] for seed, metrics in found.items() if metric in metrics}


def over_seeds(table: Table, results: Results, name: str, metric: str) -> Spread | None:
    """A metric of a row; None where there is no number."""
    values = list(by_seed(table, results, name, metric).values())
    return Spread.of(values if table.rows[name].training.trains else values[:1]) if values else None


class Judgement(NamedTuple):
    """What has come out of an ordering."""

    name: str  # BETTER > WORSE, with the metric where a table is judged in several
    verdict: str
    difference: Spread | None  # what it rests on; None where nothing was run


def judge(better: Mapping[int, float], worse: Mapping[int, float]) -> tuple[str, Spread | None]:
    """The verdict on an ordering, and the difference it rests on.

    Args: values by seed; seeds that only one of them has are left out. A single seed has no spread: its sign decides.
    """
    differences = [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]
    if not differences:
        return MISSING, None
    difference = Spread.of(differences)
    if abs(difference.mean) <= max(difference.bar, _ROUNDING):
        return OPEN, difference
    return HOLDS if difference.mean > 0 else FAILS, difference


def judge_all(table: Table, results: Results) -> list[Judgement]:
    """Every ordering of a table in every metric that it is judged in."""
    judgements = []
    for ordering, metric in product(table.orderings, table.judged):
        verdict, difference = judge(*(by_seed(table, results, name, metric) for name in ordering.split(" > ")))
        where = f", {_short_names(table)[metric]}" if len(table.judged) > 1 else ""
        judgements.append(Judgement(ordering + where, verdict, difference))
    return judgements


def _short_names(table: Table) -> dict[str, str]:
    """What a metric is called; metrics of several tasks are named with them."""
    alone = len({metric.partition("/")[0] for metric in table.metrics}) == 1
    return {metric: metric.partition("/")[2] if alone else metric for metric in table.metrics}


def as_markdown(table: Table, results: Results) -> str:
    """A table: mean ± sample standard deviation over the seeds, beside the paper's numbers and with their digits."""
    named = dict.fromkeys(column for numbers in table.paper.values() for column in numbers)
    headings = [column for column in named if column not in table.metrics]
    head = ["row", *(f"paper: {heading}" for heading in headings)]
    rule = ["---"] * len(head)
    for metric, short in _short_names(table).items():
        columns = [f"{short}, paper", f"{short}, ours"] if metric in named else [short]
        head, rule = [*head, *columns], [*rule, *["--:"] * len(columns)]
    lines = [head, rule]
    for name in table.rows:
        numbers = {column: str(number) for column, number in table.paper.get(name, {}).items()}
        line = [name, *(numbers.get(heading, _NONE) for heading in headings)]
        for metric in table.metrics:
            line += [numbers.get(metric, _NONE)] if metric in named else []
            found, digits = over_seeds(table, results, name, metric), len(numbers.get(metric, "").partition(".")[2])
            line.append(f"{found:.{digits or 1}f}" if found else _NONE)
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(table: Table, results: Results, picture: str = "") -> str:
    """A table in Markdown with the verdicts on its orderings, and `picture` of its figure."""
    named = dict.fromkeys(row.training.config for row in table.rows.values())
    configs = " and ".join(f"`{' '.join(map(str, [config, *table.options]))}`" for config in named)
    origin = [f"`{table.file}` on {configs}"]
    origin += [f"at the paper's size `{table.of}`"] if table.of else []
    origin += [table.source] if table.source else []
    text = [f"## {table.title}", f"{'; '.join(origin)}.", as_markdown(table, results)]
    text += [f"![{table.title}]({picture})"] if picture else []
    points = [
        f"- {made.name}: **{made.verdict}**" + (f", {made.difference:+.1f}" if made.difference else "")
        for made in judge_all(table, results)
    ]
    text += ["\n".join(points)] if points else []
    return "\n\n".join([*text, *table.remarks])


def _lines(table: Table, results: Results) -> dict[str, list[Point]]:
    """The lines of a figure, without points that were not run."""
    lines: dict[str, list[Point]] = {}
    for name, points in table.figure.get("lines", {}).items():
        for row, x in points.items():
            if found := over_seeds(table, results, row, table.metrics[0]):
                lines.setdefault(str(name), []).append((float(x), found.mean, found.bar))
    return lines


def write_report(path: Path, tables: Sequence[Table], results: Results, command: str) -> None:
    """All tables in Markdown, the count of verdicts first; pictures go to `images` beside the file."""

    def draw(name: str, svg: str) -> str:
        target = path.parent / "images" / f"{path.stem}_{name}.svg"
        write_text(target, svg)
        return f"images/{target.name}"

    embedded = all(table.of for table in tables)
    seeds = ", ".join(str(seeds) for seeds in sorted({table.seeds for table in tables}))
    title = "The papers' ablations on the embedded world" if embedded else "Reproduced tables"
    text = [_HEAD.format(title=title, command=command, seeds=seeds)]
    if embedded:
        linked = {name: os.path.relpath(target, path.parent) for name, target in _LINKED.items()}
        text.append(_EMBEDDED.format(**linked))
    judgements = {table.title: judge_all(table, results) for table in tables}
    total = Counter(made.verdict for group in judgements.values() for made in group)
    if total:
        counted = ", ".join(f"{total[verdict]} {what}" for verdict, what in _COUNTED.items() if total[verdict])
        drawn = {
            title: [Difference(name, spread, verdict != OPEN) for name, verdict, spread in group if spread]
            for title, group in judgements.items()
        }
        overview = draw("orderings", draw_differences(drawn))
        text.append(_ORDERINGS.format(count=f"Of {total.total()} orderings {counted}.", overview=overview))
    for table in tables:
        lines = _lines(table, results)
        axes = str(table.figure.get("x")), _short_names(table)[table.metrics[0]]
        picture = draw(Path(table.file).stem, draw_lines(lines, *axes)) if lines else ""
        text.append(write_section(table, results, picture))
    write_text(path, "\n\n".join(text) + "\n")


_ROOT = Path(__file__).resolve().parents[3]
_LINKED = {"world": _ROOT / "docs" / "architecture.md", "models": _ROOT / "weights" / "README.md"}
_HEAD = """# {title}

Written by `{command}`. Numbers are means over the seeds ± the sample standard deviation; seeds: {seeds}."""
_EMBEDDED = """\
**They say nothing about photographs.** The encoders are the tiny ones that ship with the project, the scenes are drawn,
the trainings are short ([the world]({world}#the-generated-world), [the models]({models})). No
number is comparable with a paper's. What can be compared is which row is better, and that is a property of this world
as well: an ordering that does not hold here may hold on COCO, and the other way round.

The column *paper* has what is printed, where that is known: the main results, which are the methods' own rows, and some
others. The numbers of the other rows are not in the texts that this project was written from, nor is by how much they
differ. The orderings are what the papers argue for: that each part of a method helps, and that its choices are best."""
_ORDERINGS = """\
An ordering *holds* where its better row is ahead by more than the standard deviation of the difference over the seeds,
*does not hold* where it is behind by more, and is *not resolved* between, and where both print the same. Differences
are in the first metric where no other is named.

{count} In the picture what lies to the right of 0 is as the paper has it; the bar is the standard deviation.

![Differences between rows]({overview})"""
