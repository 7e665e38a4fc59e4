"""docs/training.md claims nothing that no test shows."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_page_names_exists() -> None:
    """Each `file.py::test` is found, in tests/, tests/sam_common/ or from the root; each row of the table has one."""
    page = (ROOT / "docs" / "training.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    for path, test in named:
        files = [ROOT / folder / path for folder in ("", "tests", "tests/sam_common")]
        assert any(f"def {test}(" in file.read_text() for file in files if file.is_file()), f"{path}::{test}"
    rows = page.split("## What `--resume` restores")[1].split("|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert len(rows) == 15 and all("::test_" in row or row.endswith("| the same |") for row in rows)
