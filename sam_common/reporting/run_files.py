"""What every report takes from the files of a run: JSON, the curve of its losses, and which pictures to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sam_common.errors import UserError
from sam_common.reporting.charts import Curve


def read_json(path: Path) -> Any:
    """Raises UserError where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; run the evaluation again") from error


def loss_curve(metrics_file: Path) -> Curve:
    """The weighted losses of the last prediction point and the total of all, over the iterations.

    A resumed run writes some iterations twice; the last word counts.
    """
    entries: dict[int, dict[str, float]] = {}
    for line in metrics_file.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "total_loss" in entry:
            entries[entry["iteration"]] = entry
    names = sorted({name for entry in entries.values() for name in entry if "loss" in name and not name[-1].isdigit()})
    names.sort(key=lambda name: name != "total_loss")
    lines = {name: [(i + 1, entries[i][name]) for i in sorted(entries) if name in entries[i]] for name in names}
    return Curve("Losses, weighted", "iteration", lines)


def evenly(total: int, count: int) -> list[int]:
    """At most `count` of the indices 0 … total - 1, spread evenly, the first and the last among them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
