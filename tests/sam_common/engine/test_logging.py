"""metrics.json, the progress line and the log files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from sam_common.engine.logging import MetricsWriter, peak_memory

CPU = torch.device("cpu")


def test_lines_are_means_of_finite_losses_and_medians_of_times(tmp_path: Path) -> None:
    """Losses 1, NaN, 3 make 2; times 1, 2, 9 make 2, and two more iterations an eta of 4; the last line is for two."""
    with MetricsWriter(tmp_path, start_iteration=0, max_iter=5, device=CPU, period=3) as writer:
        for iteration, (loss, seconds) in enumerate(
            [(1.0, 1.0), (float("nan"), 9.0), (3.0, 2.0), (5.0, 2.0), (7.0, 2.0)]
        ):
            writer.step(iteration, {"loss_a": loss, "loss_b_0": 1.0}, lr=0.1, time=seconds, data_time=0.0, skipped=1)
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [2, 4]
    assert [line["loss_a"] for line in lines] == [2.0, 6.0]
    assert [line["total_loss"] for line in lines] == [3.0, 7.0]
    assert (lines[0]["time"], lines[0]["eta_seconds"]) == (2.0, 4.0)


def test_a_window_without_a_finite_loss_has_no_loss(tmp_path: Path) -> None:
    """And no NaN, which is not JSON."""
    with MetricsWriter(tmp_path, start_iteration=0, max_iter=1, device=CPU) as writer:
        writer.step(0, {"loss": float("inf")}, lr=0.1, time=1.0, data_time=0.0, skipped=1)
    line = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda name: 1 / 0)
    assert "total_loss" not in line and line["skipped"] == 1


def test_a_resumed_run_overwrites_what_it_repeats(tmp_path: Path) -> None:
    """Lines from iteration 4 on go, and so does the half line that a kill left."""
    lines = [json.dumps({"iteration": iteration}) + "\n" for iteration in (1, 3, 4, 5)]
    (tmp_path / "metrics.json").write_text("".join(lines) + '{"iterat')
    with MetricsWriter(tmp_path, start_iteration=4, max_iter=9, device=CPU) as writer:
        writer.scalars(4, {"again": 1.0})
    kept = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert kept == [{"iteration": 1}, {"iteration": 3}, {"iteration": 4, "again": 1.0}]


def test_peak_memory_is_in_mebibytes() -> None:
    """Python with torch is between 50 MiB and 100 GiB, whatever unit the system counts in."""
    assert 50 < peak_memory(CPU) < 100 * 1024, sys.platform
