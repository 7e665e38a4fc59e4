"""The console and the log files of a run."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch

from detectron2_sam.commands.train.log import log_to
from sam_common.engine.logging import MetricsWriter
from sam_common.errors import UserError

CPU = torch.device("cpu")


def test_the_progress_line_leaves_out_intermediate_losses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """`loss_a_3` is of prediction point 3; the total holds it."""
    with (
        log_to(tmp_path, 0),
        MetricsWriter(tmp_path, iteration=-1, max_iter=1, device=CPU) as writer,
    ):
        writer.add_times(1.0, 0.0)
        writer.losses(0, [{"loss_a": 1.0, "loss_a_3": 2.0}], lr=0.1, skipped=0)
    line = capsys.readouterr().out
    assert "total_loss: 3  loss_a: 1  time" in line and "skipped" not in line


def test_other_ranks_have_their_own_file_and_only_warn_on_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Rank 1's notes are kept, its warnings are seen."""
    with log_to(tmp_path, 1):
        logging.getLogger("any.module").info("a note")
        logging.getLogger("any.module").warning("a warning")
    assert "a note" not in (out := capsys.readouterr().out) and "a warning" in out
    assert "a note" in (tmp_path / "log.txt.rank1").read_text()


def test_the_log_tells_how_a_run_ended(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A mistake in a line, a flaw with its traceback; the console is left to the tool; no handler stays."""
    handlers = list(logging.getLogger().handlers)
    for number, error in enumerate((UserError("bad key"), ZeroDivisionError("flaw"))):
        with pytest.raises(type(error)), log_to(tmp_path / str(number), 0):
            raise error
    assert "ended: bad key\n" in (tmp_path / "0" / "log.txt").read_text()
    assert "Traceback" in (tmp_path / "1" / "log.txt").read_text()
    assert capsys.readouterr().out == "" and logging.getLogger().handlers == handlers


def test_a_resumed_run_goes_on_in_the_same_log(tmp_path: Path) -> None:
    """What the run said before stays in log.txt."""
    for line in ("before", "after"):
        with log_to(tmp_path, 0):
            logging.getLogger("test").info(line)
    assert [line.split()[-1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["before", "after"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file in the place of OUTPUT_DIR, or of a folder above it, is named and stays."""
    (tmp_path / "file").write_text("kept")
    for directory in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=f"cannot write to {directory}: .*; choose another OUTPUT_DIR"):
            log_to(directory, 0).__enter__()
    assert (tmp_path / "file").read_text() == "kept"


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A folder, and a pipe that nobody reads, in its place; nothing is left for Python to close when it ends."""
    known = list(logging._handlerList)
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(UserError, match=r"log\.txt"), log_to(tmp_path, 0):
        pass
    (tmp_path / "log.txt").rmdir()
    os.mkfifo(tmp_path / "log.txt")
    with pytest.raises(UserError, match=r"log\.txt is a named pipe"), log_to(tmp_path, 0):
        pass
    assert logging._handlerList == known
