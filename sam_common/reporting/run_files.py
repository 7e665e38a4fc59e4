"""What every report takes from the files of a run: JSON, and which pictures to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sam_common.errors import UserError


def read_json(path: Path) -> Any:
    """Raises UserError where the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; run the evaluation again") from error


def evenly(total: int, count: int) -> list[int]:
    """At most `count` of the indices 0 … total - 1, spread evenly, the first and the last among them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
