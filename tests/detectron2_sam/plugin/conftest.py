"""The plug-in's tests run where Detectron2 is installed; elsewhere only `test_without_detectron2.py` does."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALLED = importlib.util.find_spec("detectron2") is not None
if not INSTALLED:
    collect_ignore = [path.name for path in HERE.glob("test_*.py") if path.name != "test_without_detectron2.py"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root of data sets with a drawn world of 4 training and 2 test scenes, 64 pixels wide, known to Detectron2."""
    from detectron2_sam import register
    from detectron2_sam.commands.prepare.generated import prepare

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    prepare(tmp_path, train=4, test=2, size=64)
    register()
    return tmp_path
