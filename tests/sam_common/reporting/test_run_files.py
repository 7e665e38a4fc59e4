"""What reports take from the files of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam_common.errors import UserError
from sam_common.reporting.run_files import evenly, read_json


def test_missing_results_are_named(tmp_path: Path) -> None:
    """Error: a run without an evaluation says which file is not there."""
    with pytest.raises(UserError, match=r"panoptic_quality\.json"):
        read_json(tmp_path / "panoptic_quality.json")


def test_evenly_by_hand() -> None:
    """Derived by hand: both ends are among them; edge cases: one, all, and more than there are."""
    assert evenly(10, 4) == [0, 3, 6, 9]
    assert evenly(10, 1) == [0]
    assert evenly(3, 3) == evenly(3, 7) == [0, 1, 2]
    assert evenly(0, 4) == []
