"""From what a user names, files, folders and globs, to pictures and videos."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sam_common.errors import UserError
from sam_common.io.inputs import VIDEO_SUFFIXES, Input
from sam_common.io.pictures import REMEDIES, picture_suffixes
from sam_common.text import counted, one_line

_LONGEST_NAME = 255
"""Bytes, of most file systems."""


@dataclass
class Found:
    """What the arguments of `--input` name.

    Attributes:
        inputs: pictures and videos, each once, in the order given, folders sorted.
        unreadable: a line for each subfolder that cannot be listed.
        skipped: each other file of the folders and globs -> why it is not taken.
    """

    inputs: list[Input] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)

    def describe_skipped(self) -> str:
        """ "3 files skipped: 2 .txt, 1 hidden"."""
        kinds = ", ".join(f"{count} {why}" for why, count in sorted(Counter(self.skipped.values()).items()))
        return one_line(f"{counted(len(self.skipped), 'file')} skipped: {kinds}")


def find_inputs(given: Sequence[str], *, recursive: bool = False, leave_out: Path | None = None) -> Found:
    """Expands files, folders and globs.

    A file is taken whatever its suffix; of a folder and a glob the pictures and videos are, hidden ones skipped.

    Args:
        given: paths; `*`, `?`, `[…]` and `**` are expanded where no file has that very name.
        recursive: folders with all their subfolders.
        leave_out: a folder below a given one whose files are not looked at: the results of an earlier run.

    Raises:
        UserError: a path or pattern names nothing, a folder cannot be listed, or two results would have one name.
    """
    found = Found()
    bases: dict[Path, Path] = {}  # file -> the folder its result's path is counted from
    for text in given:
        files = list(_expand(text, recursive, found))
        if leave_out is not None:
            out = _absolute(leave_out)
            files = [(path, base) for path, base in files if base.is_relative_to(out) or not path.is_relative_to(out)]
            found.skipped = {path: why for path, why in found.skipped.items() if not path.is_relative_to(out)}
        if not files:
            hint = "" if recursive or not os.path.isdir(text) else "; --recursive looks into its subfolders too"
            skipped = f" ({found.describe_skipped()})" if found.skipped else ""
            raise UserError(f"--input {text}: there is no picture or video{skipped}{hint}")
        for path, base in files:
            bases.setdefault(path, base)
    common = Path(os.path.commonpath(list(bases.values())))
    found.inputs = _named({path: path.relative_to(common) for path in bases})
    found.skipped = {path: why for path, why in found.skipped.items() if path not in bases}
    return found


def _expand(text: str, recursive: bool, found: Found) -> Iterator[tuple[Path, Path]]:
    """(file, base) of one argument, both absolute."""
    path = _absolute(text)
    if os.path.isdir(path):
        yield from ((file, path) for file in _walk(path, recursive, found))
    elif os.path.exists(path) or not glob.has_magic(text):
        yield path, path.parent  # one that is not there is named when it is read
    else:
        base = path
        while glob.has_magic(str(base)):
            base = base.parent
        for name in sorted(glob.glob(str(path), recursive=True)):
            match = Path(name)
            if match.is_dir() and recursive:
                yield from ((file, base) for file in _walk(match, recursive, found))
            elif not match.is_dir() and _is_wanted(match, found):
                yield match, base


def _walk(folder: Path, recursive: bool, found: Found) -> Iterator[Path]:
    def complain(error: OSError) -> None:
        line = one_line(f"{error.filename}: the folder cannot be listed: {error.strerror}")
        if error.filename == str(folder):
            raise UserError(line) from error
        found.unreadable.append(line)

    for root, folders, files in os.walk(folder, onerror=complain):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        yield from (path for path in sorted(Path(root, name) for name in files) if _is_wanted(path, found))


def _is_wanted(path: Path, found: Found) -> bool:
    """Whether a file of a folder or glob is taken; if not, notes why."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        found.skipped[path] = "hidden"
    elif suffix not in picture_suffixes() | VIDEO_SUFFIXES:
        remedy = f" ({REMEDIES[suffix]})" if suffix in REMEDIES else ""
        found.skipped[path] = f"{suffix}{remedy}" if suffix else "without a suffix"
    else:
        return True
    return False


def _named(relative: dict[Path, Path]) -> list[Input]:
    names = {path: below.with_suffix("").as_posix() for path, below in relative.items()}
    counts = Counter(name.casefold() for name in names.values())  # some disks do not tell a.png from A.png
    for path, below in relative.items():
        if counts[names[path].casefold()] > 1:
            names[path] = below.as_posix()
    return [_shortened(Input(path, below.as_posix(), names[path])) for path, below in relative.items()]


def _shortened(source: Input) -> Input:
    """The input under a name that leaves room for the suffixes of its results."""
    room = _LONGEST_NAME - len(".jsonl" if source.is_video else ".png")
    parent, _, name = source.name.rpartition("/")
    if len(os.fsencode(name)) <= room:
        return source
    mark = f"-{hashlib.sha256(os.fsencode(source.relative)).hexdigest()[:8]}"
    name = os.fsencode(name)[: room - len(mark)].decode(errors="ignore") + mark
    return replace(source, name=f"{parent}/{name}" if parent else name)


def _absolute(path: str | os.PathLike) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))
