"""The benchmarks run, and what they check first holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import possam_criterion, run
from tests.support.plain_criterion import plain

ROOT = Path(__file__).resolve().parents[1]


def test_the_embedding_cache_changes_nothing_that_is_learned() -> None:
    """Trained weights are the same without a cache, with one, and with one on disk; each shot is encoded once at most.

    Of 2 epochs of 4 shots, each validated on half of them, 12 passes go through the encoder without the cache.
    """
    command = ["-m", "benchmarks.amsam_embedding_cache", "--sizes", "T", "--epochs", "2", "--image-size", "64"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["identical"] and line["identical_from_disk"]
    assert line["encoder_passes"] == {"uncached": 12, "cached": 4, "from_disk": 0}


def test_a_script_that_does_not_fit_is_ended_with_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that leaves a process behind, which keeps the output open: what was printed counts, and the next one runs."""
    stay = "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])"
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "stays.py").write_text(f"import subprocess, sys; print('{{}}', flush=True); {stay}")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    lines, problem = run.run("stays", 1.5)
    assert problem == "did not fit"
    assert lines in ([], [{}])  # a slow machine may not have come that far


def test_the_criterion_is_mask2formers() -> None:
    """Losses and gradients are those of the formulation that takes each prediction point by itself."""
    possam_criterion.check(plain)
    possam_criterion.check(possam_criterion.point_by_point)
