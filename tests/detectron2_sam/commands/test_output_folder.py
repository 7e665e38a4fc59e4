"""One run at a time in an output folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detectron2_sam.commands import output_folder
from detectron2_sam.commands.output_folder import claimed
from sam_common.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
HOLDER = """
import os, pathlib, sys
from detectron2_sam.commands.output_folder import claimed
with claimed(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:  # as a worker of its loader
        os.close(1)
        os.read(0, 1)
        os._exit(0)
    print("claimed", flush=True)
    os.read(0, 1)
"""


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    """In one line that names the folder; a kill leaves no lock behind, though a worker may live on for a moment."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    with process:
        assert process.stdout.readline() == b"claimed\n"
        with pytest.raises(UserError, match=str(tmp_path)), claimed(tmp_path):
            pass
        process.kill()
        process.wait()
        with claimed(tmp_path):
            process.stdin.close()  # ends the worker


def test_what_killed_runs_left_is_cleared(tmp_path: Path) -> None:
    """Half written files, in folders below too; all others stay, and so do those of a run in a folder below."""
    for name in ("inference", "other"):
        (tmp_path / name).mkdir()
    for name in (".detectron2-sam-1.pth", "inference/.detectron2-sam-2.json", "model_final.pth"):
        (tmp_path / name).touch()
    with claimed(tmp_path / "other"):
        (tmp_path / "other" / ".detectron2-sam-3.pth").touch()
        with claimed(tmp_path):
            pass
        assert (tmp_path / "other" / ".detectron2-sam-3.pth").exists()
    left = {path.name for path in tmp_path.iterdir()} | {path.name for path in (tmp_path / "inference").iterdir()}
    assert left == {".lock", "inference", "other", "model_final.pth"}


def test_where_there_are_no_locks_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On Windows, and with a word on a file system that has none."""

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(output_folder.fcntl, "lockf", no_locks)
    with claimed(tmp_path):
        assert str(tmp_path) in caplog.text
    monkeypatch.setattr(output_folder, "fcntl", None)
    with claimed(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"), claimed(tmp_path / "file"):
        pass


def test_a_lock_that_is_something_else(tmp_path: Path) -> None:
    """A pipe is refused, not waited for; a link leaves what it leads to as it is."""
    (tmp_path / "text").write_text("mine")
    (tmp_path / ".lock").symlink_to("text")
    with claimed(tmp_path):
        assert (tmp_path / "text").read_text() == "mine"
    (tmp_path / ".lock").unlink()
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(UserError, match=r"\.lock is a named pipe"), claimed(tmp_path):
        pass
