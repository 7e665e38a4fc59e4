"""One run at a time in an output folder."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sam_common.errors import UserError
from sam_common.io.files import refuse_special_file, remove_temporary_files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""Name of the file that a run locks. The file stays; the lock ends with the process that holds it."""


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Makes a folder, keeps other runs out of it, and removes the half-written files of killed ones, but for those in
    folders within that runs of their own have claimed.

    Raises:
        UserError: another run is going on there, or the folder cannot be written to.
    """
    refuse_special_file(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")  # where it is a link, to something else, that stays as it is
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    with file:
        _lock(file, folder)
        remove_temporary_files(folder, leave_out=LOCK)
        yield


def _lock(file: IO[str], folder: Path) -> None:
    """A POSIX lock, which children do not inherit: others would outlive a killed run in its workers."""
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(f"{folder}: another run is going on there; wait for it, or choose another folder") from None
        logger.warning("%s cannot be locked (%s): nothing keeps other runs out of it", folder, error.strerror)
