"""What runs have shown, as tables: mean ± sample standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from detectron2_sam.commands.reproduce.rows import Rows
from detectron2_sam.commands.reproduce.runs import Cell, Metrics, find_cell

_MISSING = "–"


def summarise(results: Mapping[Cell, Metrics], rows: Rows, seeds: int) -> list[list[str]]:
    """Table rows: row, test, and for each metric `mean ± sd` over seeds (the sample standard deviation)."""
    table = []
    for label in rows.labels:
        for tested in rows.tested:
            cells = [mean_and_deviation(values(results, rows, label, tested, m, seeds)) for m in rows.metrics]
            table.append([label, tested, *cells])
    return table


def by_seed(
    results: Mapping[Cell, Metrics], rows: Rows, label: str, tested: str, metric: str, seeds: int
) -> dict[int, float]:
    """Seed -> a metric of a row, where it is a number; what is not trained has the same one with every seed."""
    found = {seed: results[find_cell(rows, label, tested, seed)] for seed in range(seeds)}
    return {seed: metrics[metric] for seed, metrics in found.items() if metric in metrics}


def values(
    results: Mapping[Cell, Metrics], rows: Rows, label: str, tested: str, metric: str, seeds: int
) -> list[float]:
    """A metric of a row with each seed, where it is a number; once where nothing is trained."""
    return list(by_seed(results, rows, label, tested, metric, seeds if label in rows.trained else 1).values())


def mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return _MISSING
    spread = f" ± {deviation(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation, 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def markdown(table: list[list[str]], metrics: Sequence[str]) -> str:
    """The table as Markdown."""
    lines = [["row", "tested", *column_names(metrics)], ["---"] * 2 + ["--:"] * len(metrics), *table]
    if all(line[1] == "" for line in table):  # there is but one way to test them
        lines = [[line[0], *line[2:]] for line in lines]
    return as_markdown(lines)


def column_names(metrics: Sequence[str]) -> list[str]:
    """Metrics of several tasks are named with them."""
    tasks = {metric.partition("/")[0] for metric in metrics}
    return [metric.partition("/")[2] for metric in metrics] if len(tasks) == 1 else list(metrics)


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
