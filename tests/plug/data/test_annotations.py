"""Groups of instances."""

from __future__ import annotations

from typing import Any

import pytest

from plug.data.annotations import group_instances


def record(name: str, count: int) -> dict[str, Any]:
    return {"image_id": name, "height": 6, "width": 8, "annotations": [{"id": place} for place in range(count)]}


def test_groups(caplog: pytest.LogCaptureFixture) -> None:
    """Invariant: every annotation once, in order, at most `size` together, groups of an image equal but for one."""
    records = [record("a", 9), record("b", 0), record("c", 8), record("d", 1), record("e", 17)]
    with caplog.at_level("INFO"):
        groups = group_instances(records, 8)
    sizes = [(group["image_id"], len(group["annotations"])) for group in groups]
    assert sizes == [("a", 4), ("a", 5), ("c", 8), ("d", 1), ("e", 5), ("e", 6), ("e", 6)]
    for entry in records:
        parts = [group["annotations"] for group in groups if group["image_id"] == entry["image_id"]]
        assert [item for part in parts for item in part] == entry["annotations"]
    assert "1 of 5 training images show no object" in caplog.text
    assert records[0]["annotations"] == record("a", 9)["annotations"]  # untouched
