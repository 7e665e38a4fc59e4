"""Runs a script of `datasets/`, which is no package, as its command line does."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detectron2_sam.commands.prepare.preparation import run
from sam_common.data import catalog

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """(name, arguments) -> exit status."""
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})

    def start(name: str, *arguments: str) -> int:
        spec = importlib.util.spec_from_file_location(name, ROOT / "datasets" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        try:
            run(module.main)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return start
