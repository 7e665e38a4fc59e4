"""From what a user names, files, folders and globs, to pictures and videos."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from sam_common.errors import UserError
from sam_common.io.inputs import VIDEO_SUFFIXES, Input
from sam_common.io.pictures import picture_suffixes


def find_inputs(
    given: Sequence[str], *, recursive: bool = False, leave_out: Path | None = None
) -> tuple[list[Input], list[str]]:
    """Expands files, folders and globs, each file once, in the order given, folders sorted.

    A file is taken whatever its suffix; of a folder and a glob the pictures and videos are, hidden ones left out.

    Args:
        given: paths; `*`, `?`, `[…]` and `**` are expanded where no file has that very name.
        recursive: folders with all their subfolders.
        leave_out: a folder below a given one whose files are not taken: the results of an earlier run.

    Returns:
        The inputs, and one line for each subfolder that cannot be listed.

    Raises:
        UserError: a path or pattern names nothing, a folder cannot be listed, or two results would have one name.
    """
    unreadable: list[str] = []
    bases: dict[Path, Path] = {}  # file -> the folder its result's path is counted from
    for text in given:
        found = list(_expand(text, recursive, unreadable))
        if leave_out is not None:
            out = _absolute(leave_out)
            found = [(path, base) for path, base in found if base.is_relative_to(out) or not path.is_relative_to(out)]
        if not found:
            hint = "" if recursive or not os.path.isdir(text) else "; --recursive looks into its subfolders too"
            raise UserError(f"--input {text}: there is no picture or video{hint}")
        for path, base in found:
            bases.setdefault(path, base)
    common = Path(os.path.commonpath(list(bases.values())))
    relative = {path: path.relative_to(common) for path in bases}
    return _named(relative), unreadable


def _expand(text: str, recursive: bool, unreadable: list[str]) -> Iterator[tuple[Path, Path]]:
    """(file, base) of one argument, both absolute."""
    path = _absolute(text)
    if path.is_dir():
        yield from ((file, path) for file in _walk(path, recursive, unreadable))
    elif path.exists() or not glob.has_magic(text):
        yield path, path.parent  # one that is not there is named when it is read
    else:
        base = path
        while glob.has_magic(str(base)):
            base = base.parent
        for name in sorted(glob.glob(str(path), recursive=True)):
            match = Path(name)
            if match.is_dir() and recursive:
                yield from ((file, base) for file in _walk(match, recursive, unreadable))
            elif match.is_file() and _is_wanted(match):
                yield match, base


def _walk(folder: Path, recursive: bool, unreadable: list[str]) -> Iterator[Path]:
    def complain(error: OSError) -> None:
        line = f"{error.filename}: the folder cannot be listed: {error.strerror}"
        if error.filename == str(folder):
            raise UserError(line) from error
        unreadable.append(line)

    for root, folders, files in os.walk(folder, onerror=complain):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        yield from (path for path in sorted(Path(root, name) for name in files) if _is_wanted(path))


def _is_wanted(path: Path) -> bool:
    return path.suffix.lower() in picture_suffixes() | VIDEO_SUFFIXES and not path.name.startswith(".")


def _named(relative: dict[Path, Path]) -> list[Input]:
    names = {path: below.with_suffix("").as_posix() for path, below in relative.items()}
    counts = Counter(name.casefold() for name in names.values())  # some disks do not tell a.png from A.png
    for path, below in relative.items():
        if counts[names[path].casefold()] > 1:
            names[path] = below.as_posix()
    return [Input(path, below.as_posix(), names[path]) for path, below in relative.items()]


def _absolute(path: str | os.PathLike) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))
