"""metrics.json, the progress line and the log files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sam_common.engine.logging import GrowingFile, MetricsWriter, peak_memory
from sam_common.errors import UserError

CPU = torch.device("cpu")


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_lines_are_means_of_losses_and_medians_of_times(tmp_path: Path) -> None:
    """Losses 1 and 3 make 2; times 1, 2, 9 make 2, and two more iterations an eta of 4; the last line is for two."""
    with MetricsWriter(tmp_path, iteration=-1, max_iter=5, device=CPU) as writer:
        for iteration, seconds, losses in [(2, (1.0, 9.0, 2.0), (1.0, 3.0)), (4, (2.0, 2.0), (5.0, 7.0))]:
            for time in seconds:
                writer.add_times(time, 0.0)
            writer.losses(iteration, [{"loss_a": loss, "loss_b_0": 1.0} for loss in losses], lr=0.1, skipped=1)
    first, last = lines(tmp_path)
    assert (first["iteration"], first["loss_a"], first["total_loss"]) == (2, 2.0, 3.0)
    assert (last["iteration"], last["loss_a"], last["total_loss"]) == (4, 6.0, 7.0)
    assert (first["time"], first["eta_seconds"], last["time"]) == (2.0, 4.0, 2.0)


def test_a_line_without_a_finite_loss_has_no_loss(tmp_path: Path) -> None:
    """And no NaN, which is not JSON."""
    with MetricsWriter(tmp_path, iteration=-1, max_iter=1, device=CPU) as writer:
        writer.add_times(1.0, 0.0)
        writer.losses(0, [], lr=0.1, skipped=1)
    line = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda name: 1 / 0)
    assert "total_loss" not in line and line["skipped"] == 1


def test_a_resumed_run_overwrites_what_it_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was measured after iteration 3 goes, and all of later ones; so do a half line and two that are no JSON."""
    entries = [{"iteration": 3, "lr": 0.1}, {"iteration": 3, "measured": 1.0}, {"iteration": 4, "lr": 0.1}]
    text = b"".join(json.dumps(entry).encode() + b"\n" for entry in [{"iteration": 1}, *entries])
    (tmp_path / "metrics.json").write_bytes(b"\xff\xfe\n[]\n" + text + b'{"iteration": 2}')
    with MetricsWriter(tmp_path, iteration=3, max_iter=9, device=CPU) as writer:
        writer.scalars(3, {"again": 1.0})
    assert lines(tmp_path) == [{"iteration": 1}, {"iteration": 3, "lr": 0.1}, {"iteration": 3, "again": 1.0}]
    assert "2 lines" in caplog.text


def test_tensorboard_forgets_what_is_repeated(tmp_path: Path) -> None:
    """Two attempts, the second from iteration 1 on: its scalar is the one that is shown."""
    for iteration, value in [(-1, 1.0), (0, 2.0)]:
        with MetricsWriter(tmp_path, iteration=iteration, max_iter=9, device=CPU) as writer:
            for number in range(iteration + 1, 3):
                writer.scalars(number, {"a": value})
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("a")
    assert [(event.step, event.value) for event in events] == [(0, 1.0), (1, 2.0), (2, 2.0)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """It names the file, and closing that says nothing more."""
    file = GrowingFile(tmp_path / "events")
    file.file = open("/dev/full", "ab")  # noqa: SIM115
    with pytest.raises(UserError, match=r"events: No space left"):
        file.write(b"line")
    file.close()


def test_peak_memory_is_in_mebibytes() -> None:
    """Python with torch is between 50 MiB and 100 GiB, whatever unit the system counts in."""
    assert 50 < peak_memory(CPU) < 100 * 1024, sys.platform
