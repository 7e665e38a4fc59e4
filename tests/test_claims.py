"""docs/claims.md: what it names is there, what it says of configurations is so, no number of a paper is left out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from detectron2_sam.commands.reproduce.table import EMBEDDED, read_table, table_names
from detectron2_sam.methods import full_cfg

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
STATES = ("exact", "ordering holds", "does not hold", "not resolved", "needs data and weights", "needs a GPU", "quoted")
REPORT = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")


def claims() -> list[list[str]]:
    """The cells of every row of the tables of claims."""
    tables = PAGE.split("| claim | configuration or command | state |\n|---|---|---|\n")[1:]
    return [row.strip("| ").split(" | ") for table in tables for row in table.split("\n\n")[0].splitlines()]


def test_every_file_that_the_page_names_exists() -> None:
    """Configurations, tests and tools."""
    named = set(re.findall(r"\b(?:configs|tests|tools|docs)/[\w./-]+\.(?:yaml|py|txt|md)\b", PAGE))
    assert len(named) > 35
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_claim_has_a_state_that_the_page_explains() -> None:
    """What is bold in the last column is one of the states, and there is at least one."""
    assert len(claims()) >= 35
    for _, _, state in claims():
        bold = re.findall(r"\*\*(.+?)\*\*", state)
        assert bold and set(bold) <= set(STATES), state
    assert set(re.findall(r"\*\*(.+?)\*\*", PAGE.split("## PosSAM")[0])) == set(STATES)


def test_every_table_of_a_paper_is_claimed_at_both_sizes() -> None:
    """Each ablation on the embedded world, and its table at the paper's size."""
    tables = [read_table(name) for name in EMBEDDED]
    files = [file for table in tables for file in (table.file, f"configs/tables/{table.of}.yaml")]
    assert len(set(files)) == 18
    assert [file for file in files if f"`{file}`" not in PAGE] == []


@pytest.mark.parametrize("path", [f"configs/tables/{name}.yaml" for name in EMBEDDED])
def test_verdicts_are_those_of_the_report(path: str) -> None:
    """Of each ablation on the embedded world the page says what docs/reproduction.md says, no more and no less."""
    (section,) = [text for text in REPORT.split("\n## ")[1:] if f"`{path}`" in text]
    found = {"ordering holds" if word == "holds" else word for word in re.findall(r": \*\*(.+?)\*\*", section)}
    (state,) = [state for _, configs, state in claims() if f"`{path}`" in configs]
    assert set(re.findall(r"\*\*(.+?)\*\*", state)) - {"needs data and weights"} == found


def test_no_number_of_a_paper_is_left_out() -> None:
    """What the configurations, the tables to reproduce and the pages on the papers quote as theirs is on this page."""
    quoted = [line for file in (ROOT / "configs").glob("*.yaml") for line in file.read_text().splitlines()]
    quoted = [line.partition("aper")[2].replace("arXiv 2403.09620", "") for line in quoted if "# Paper" in line]
    pages = [line for file in (ROOT / "docs" / "papers").glob("*.md") for line in file.read_text().splitlines()]
    quoted += [line for line in pages if re.match(r"\| (paper|C2F-Seg)", line)]
    quoted += [str(numbers) for name in table_names() for numbers in read_table(name).paper.values()]
    numbers = {number for line in quoted for number in re.findall(r"\d+\.\d+", line)}
    assert len(numbers) > 40
    assert sorted(number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", PAGE)) == []


def test_settings_are_those_of_the_configurations() -> None:
    """Each row of the last table, with the file that the row, or one above it, names."""
    rows = PAGE.split("| configuration | key | value |\n|---|---|---|\n")[1].strip().splitlines()
    assert len(rows) == 21
    cfg = full_cfg()
    for row in rows:
        file, key, value = (cell.strip(" `") for cell in row.strip("|").split("|"))
        if file:
            cfg = full_cfg()
            cfg.merge_from_file(file)
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node == ast.literal_eval(value), row
