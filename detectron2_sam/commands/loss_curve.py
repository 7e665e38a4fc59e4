"""The curve of a training's losses, for a report."""

from __future__ import annotations

import json
from pathlib import Path

from sam_common.reporting.charts import Curve


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
