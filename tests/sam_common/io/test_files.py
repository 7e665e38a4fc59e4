"""Files that appear whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sam_common.errors import UserError
from sam_common.io.files import atomic_path, refuse_special_file, remove_temporary_files, write_text


def test_files_are_as_private_as_the_user_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the umask, which is the process's: to set it, even for a moment, would be to set it for other threads."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", None)
        write_text(tmp_path / "new" / "text.txt", "whole")
        with atomic_path(tmp_path / "replaced.txt") as temporary:  # as by writers that make files of their own
            temporary.unlink()
            temporary.touch(mode=0o600)
    finally:
        monkeypatch.undo()
        os.umask(before)
    files = [tmp_path / "new" / "text.txt", tmp_path / "replaced.txt"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o640, 0o640]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(files)


@pytest.mark.parametrize("name", [f"{'m' * 251}.txt", f"{'名' * 83}.txt", f"a.{'b' * 253}"])
def test_a_name_as_long_as_the_file_system_allows(name: str, tmp_path: Path) -> None:
    """255 bytes fit; the temporary name is not longer than the file's own."""
    write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    """Below the folder, and nothing else, hidden files of others included."""
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").touch()
    writers = [atomic_path(tmp_path / "deep" / "a.pth"), atomic_path(tmp_path / "b.json")]
    for writer in writers:
        writer.__enter__()
    assert remove_temporary_files(tmp_path) == 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [".hidden"]


def test_special_files_are_refused(tmp_path: Path) -> None:
    """A pipe would block its reader, a device may never end; what is not there is the caller's to tell."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match=path.name):
            refuse_special_file(path)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path, tmp_path / "missing", "a\0b"):
        refuse_special_file(path)
