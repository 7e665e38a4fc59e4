"""Fixtures every test may use."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from detectron2_sam.methods import methods

PLUGIN = "tests/detectron2_sam/plugin/"


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


@pytest.fixture(scope="session", autouse=True)
def _methods() -> None:
    """The engine knows every method, as it does in each command."""
    methods()


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Each test begins with the same random numbers and as many threads: benchmarks choose their own, and sums of
    another number of threads are rounded otherwise."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says whether the plug-in was tested: a silent skip would look like a pass."""
    if importlib.util.find_spec("detectron2") is None:
        terminalreporter.write_line("Detectron2 plug-in: NOT tested, Detectron2 is not installed (docs/detectron2.md)")
        return
    counts = {
        outcome: sum(
            "tests/detectron2_sam/plugin/" in report.nodeid for report in terminalreporter.stats.get(outcome, ())
        )
        for outcome in ("passed", "failed", "error", "skipped")
    }
    if any(counts.values()):
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        terminalreporter.write_line(f"Detectron2 plug-in: {said}")
