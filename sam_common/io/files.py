"""Writing files so that a reader, or a kill in the middle, never meets half of one; opening none that could block."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sam_common.errors import UserError

_TEMPORARY = ".detectron2-sam-"
"""How the names of temporary files begin, whatever they are of: a long name would leave no room for an addition."""

_LONGEST_SUFFIX = 16

_SPECIAL = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path in the same folder to write to; it takes the place of `path` when the block ends without an error.

    Parents are made. The temporary name keeps the suffix, from which writers tell the format.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}{path.suffix[-_LONGEST_SUFFIX:]}")
        temporary.touch(exist_ok=False)  # as private as the user's files are; mkstemp's are more so
        mode = temporary.stat().st_mode
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(mode)  # writers may have put a file of their own there
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # the second is how safetensors tells of a full disk
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot write {path}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text through `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_temporary_files(folder: str | os.PathLike, *, leave_out: str = "") -> int:
    """Removes what killed writers left behind below a folder; returns how many files it was.

    Only where no other process writes.

    Args:
        leave_out: subfolders that hold a file of this name are not looked into.
    """
    left: list[Path] = []
    for root, folders, names in os.walk(os.fspath(folder)):
        left += [Path(root, name) for name in names if name.startswith(_TEMPORARY)]
        folders[:] = [name for name in folders if not leave_out or not Path(root, name, leave_out).exists()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def read_bytes(path: str | os.PathLike, kind: str = "file") -> bytes:
    """The content of a file, which messages call the `kind`.

    Raises:
        UserError: it is not there, cannot be read, or is special.
    """
    refuse_special_file(path)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # the second for a zero byte in the name
        raise UserError(f"the {kind} {path} cannot be read: {getattr(error, 'strerror', error)}") from error


def refuse_special_file(path: str | os.PathLike) -> None:
    """Raises UserError where a path is a pipe, a socket or a device: reading it may block, or never end."""
    try:
        kind = _SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # the caller's open tells of a file that is not there
        return
    if kind is not None:
        raise UserError(f"{path} is {kind}, not a file; give an ordinary file")
