"""A published table: its rows, as what this project runs, and what the paper prints in them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from detectron2_sam.commands.reproduce.rows import Rows, parse_rows, read_rows
from detectron2_sam.commands.reproduce.runs import Cell, Metrics
from detectron2_sam.commands.reproduce.tables import as_markdown, values
from sam_common.config import find_config
from sam_common.errors import UserError

FOLDER = "configs/reproduction"
_ANY = "possam-1"  # where it is, all of them are
_MISSING = "–"


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        name: what `--table` calls it.
        title: what it is about.
        source: where its numbers are printed.
        rows: what is trained and tested.
        seeds: how many, unless the command line tells.
        printed: (label, tested, metric) -> the paper's number, with the digits that it prints.
    """

    name: str
    title: str
    source: str
    rows: Rows
    seeds: int
    printed: Mapping[tuple[str, str, str], str]


def table_names() -> list[str]:
    """The names of all tables that ship, sorted."""
    return sorted(path.stem for path in find_config(f"{FOLDER}/{_ANY}.yaml").parent.glob("*.yaml"))


def read_table(name: str, more: Sequence[str] = ()) -> Table:
    """Reads a table by its name, or from a YAML file of these keys:

        title, source: see `Table`; seeds: 1 unless told otherwise.
        rows: as `tools/ablation.py` reads them, or the name of such a file.
        paper: label -> metric -> number. Where rows are tested in several ways the label is "label, tested".

    `more` overrides every row.

    Raises:
        UserError: there is no such table, or the file is not like that.
    """
    file = _find(name)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as plain YAML: {' '.join(str(error).split())}") from error
    needed = {"title", "source", "rows", "paper"}
    if not (isinstance(content, dict) and needed <= set(content) <= needed | {"seeds"}):
        raise UserError(f"{file}: a table is told by title, source, rows and paper, and may have seeds")
    seeds, paper, rows = content.get("seeds", 1), content["paper"], content["rows"]
    if not (isinstance(seeds, int) and seeds >= 1):
        raise UserError(f"{file}: seeds is how many, at least 1, not {seeds!r}")
    if not (isinstance(paper, dict) and all(isinstance(numbers, dict) for numbers in paper.values())):
        raise UserError(f"{file}: paper gives labels of rows the numbers of metrics")
    rows = read_rows(rows, more) if isinstance(rows, str) else parse_rows(rows, file, more)
    named = {_row_name(label, tested): (label, tested) for label in rows.labels for tested in rows.tested}
    printed = {}
    for row, numbers in paper.items():
        for metric, number in numbers.items():
            if row not in named or metric not in rows.metrics:
                raise UserError(f"{file}: paper has a number of {row}, {metric}: no row, or no metric, is called that")
            label, tested = named[row]
            printed[label, tested, metric] = str(number)
    return Table(file.stem, str(content["title"]), str(content["source"]), rows, seeds, printed)


def _find(name: str) -> Path:
    if name.endswith(".yaml"):
        return find_config(name)
    if name not in table_names():
        raise UserError(f"there is no table {name!r}; choose one of {', '.join(table_names())}, or give a YAML file")
    return find_config(f"{FOLDER}/{name}.yaml")


def _row_name(label: str, tested: str) -> str:
    return f"{label}, {tested}" if tested else label


def compare(table: Table, results: Mapping[Cell, Metrics], seeds: int) -> str:
    """The table in Markdown: of every metric what the paper prints, and our mean ± sample standard deviation."""
    rows = table.rows
    head = ["row", *(f"{metric}, {whose}" for metric in rows.metrics for whose in ("paper", "ours"))]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for label in rows.labels:
        for tested in rows.tested:
            line = [_row_name(label, tested)]
            for metric in rows.metrics:
                printed = table.printed.get((label, tested, metric), _MISSING)
                line += [printed, _ours(values(results, rows, label, tested, metric, seeds), printed)]
            lines.append(line)
    return as_markdown(lines)


def _ours(found: Sequence[float], printed: str) -> str:
    """With as many digits as the paper prints."""
    if not found:
        return _MISSING
    digits = len(printed.partition(".")[2]) or 1
    spread = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.{digits}f}{spread}"
