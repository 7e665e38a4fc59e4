"""Writing files so that a reader, or a kill in the middle, never meets half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sam_common.errors import UserError


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
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
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
