"""Prepares data sets as the command line does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from detectron2_sam.program import main
from sam_common.data import catalog


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """(name, arguments) -> exit status."""
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    return lambda name, *arguments: main(["prepare", name, *arguments])
