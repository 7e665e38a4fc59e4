"""The curve of a training's losses, for a report."""

from __future__ import annotations

import json
from pathlib import Path

from sam_common.errors import UserError
from sam_common.reporting.charts import Curve


def loss_curve(metrics_file: Path) -> Curve:
    """The weighted losses of the last prediction point and the total of all, over the iterations.

    A resumed run writes some iterations twice; the last word counts.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        lines = [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
        entries = {line["iteration"]: line for line in lines if "total_loss" in line}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{metrics_file} is missing or damaged: give its training again, with --resume") from error
    names = sorted({name for entry in entries.values() for name in entry if "loss" in name and not name[-1].isdigit()})
    names.sort(key=lambda name: name != "total_loss")
    curves = {name: [(i + 1, entries[i][name]) for i in sorted(entries) if name in entries[i]] for name in names}
    return Curve("Losses, weighted", "iteration", curves)
