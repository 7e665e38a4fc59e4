"""What benchmarks/memory.py counts, what it says where memory does not suffice, and how it goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory
from benchmarks.cases import Case

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
GIB = 2**30


@LINUX
def test_the_parts_of_a_peak() -> None:
    """The tiny AM-SAM has 2,855,390 numbers of 4 bytes and trains 134,290, each with two moments; the parts add up."""
    found = memory.outcome(Case("amsam_T", "training", 1), 8 * GIB)
    assert found["weights"] == pytest.approx(2_855_390 * 4 / 2**20, abs=0.1)
    assert found["gradients"] == pytest.approx(134_290 * 4 / 2**20, abs=0.06)
    assert found["optimizer"] == pytest.approx(2 * 134_290 * 4 / 2**20, abs=0.06)
    assert found["activations"] > 0
    assert found["peak"] == pytest.approx(sum(found[part] for part in memory.PARTS[:-1]), abs=0.3)


@LINUX
def test_too_little_memory_is_told() -> None:
    """Masks of 100,000 objects take 30 GB; the limit is 2."""
    case = Case("plug_T", "inference", 100_000)
    assert memory.outcome(case, 2 * GIB) == {"problem": "does not fit into 2048 MiB"}


def test_what_differs_in_data_alone_is_measured_once() -> None:
    """KINS and COCOA train the same PLUG, with other batches; its sizes differ, and small ones come first."""
    found = memory.twins(["plug_B_kins", "plug_H_cocoa", "plug_B_cocoa", "plug_T_kins"])
    assert list(found.items()) == [("plug_T_kins", []), ("plug_B_cocoa", ["plug_B_kins"]), ("plug_H_cocoa", [])]


def test_what_is_known_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two cases one is in the file: only the other is measured. The table has what each further object takes."""
    activations, measured = {1: 1024.0, 3: 2048.0}, []

    def outcome(case: memory.Case, limit: float) -> dict[str, Any]:
        measured.append(case.count)
        return {**dict.fromkeys(memory.PARTS, 0.0), "activations": activations[case.count], "precision": "float32"}

    monkeypatch.setattr(memory, "outcome", outcome)
    asked = ["--configs", "plug_T", "--modes", "inference", "--output", str(tmp_path / "memory.jsonl"), "--counts"]
    memory.main([*asked, "1"])
    memory.main([*asked, "1", "3"])
    assert measured == [1, 3]
    assert capsys.readouterr().out.rstrip(" |\n").endswith("1.00 + 0.50")  # GiB: of one, and of each further one
