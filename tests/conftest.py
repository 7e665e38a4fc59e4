"""Fixtures every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples; skips where `DETECTRON2_SAM_SAMPLES` names none."""
    folder = os.environ.get("DETECTRON2_SAM_SAMPLES", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real samples: set DETECTRON2_SAM_SAMPLES to their folder")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache of downloads and text embeddings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
