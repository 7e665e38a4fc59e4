"""Files that appear whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sam_common.io.files import atomic_path, write_text


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
