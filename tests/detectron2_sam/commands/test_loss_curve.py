"""The curve of a training's losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detectron2_sam.commands.loss_curve import loss_curve
from sam_common.errors import UserError


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


@pytest.mark.parametrize("content", [b"\xff\n", b"{\n", b'{"total_loss": 1}\n', b"3\n"])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    """It is named."""
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.json"):
        loss_curve(tmp_path / "metrics.json")
