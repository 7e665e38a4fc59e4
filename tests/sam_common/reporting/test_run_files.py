"""What reports take from the files of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam_common.errors import UserError
from sam_common.reporting.run_files import evenly, loss_curve, read_json


def test_loss_curve_takes_the_last_word_of_a_resumed_run(tmp_path: Path) -> None:
    """Derived by hand: an iteration written twice counts once; intermediate losses and metrics are no lines."""
    entries = [
        {"iteration": 19, "total_loss": 9.0, "loss_mask": 4.0, "loss_mask_0": 5.0, "lr": 0.1},
        {"iteration": 39, "total_loss": 7.0, "loss_mask": 3.0},
        {"iteration": 39, "total_loss": 6.0, "loss_mask": 2.0},
        {"iteration": 39, "panoptic_seg/PQ": 50.0},
    ]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert loss_curve(tmp_path / "metrics.json").lines == {
        "total_loss": [(20, 9.0), (40, 6.0)],
        "loss_mask": [(20, 4.0), (40, 2.0)],
    }


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
