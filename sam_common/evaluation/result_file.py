"""Result files that grow on disk while images go by, so that memory does not."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.layers.processes import gather, is_main_process, rank_and_size


class ResultFile:
    """A JSON file with one long list, to which every rank appends; the whole appears when `join` is called.

    Until then each rank keeps its entries beside it, in a hidden file of its own; what an earlier evaluation left of
    that is forgotten.

    Args:
        path: of the whole; several machines must share the folder.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.rank{rank_and_size()[0]}")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # of the latter `append` speaks
            self._part.unlink()
        self._joined = False

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Adds entries of this rank.

        Raises:
            UserError: the disk does not take them.
        """
        lines = "".join(f"{json.dumps(entry)}\n" for entry in entries)
        try:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("a", encoding="utf-8") as file:
                file.write(lines)
            self._joined = False
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error

    def join(self, head: Mapping[str, Any] | None = None, key: str = "") -> None:
        """Writes the entries of all ranks, in their order; every rank must call it. Again, it leaves what is there.

        Args:
            head: makes the file an object with these entries and the list under `key`, instead of the list alone.
        """
        parts = gather(self._part)  # no rank gets here before it has appended all it has
        again, self._joined = all(gather(self._joined)), True
        if again or not is_main_process():
            return
        opening = "[" if head is None else f"{json.dumps(head)[:-1]}{', ' if head else ''}{json.dumps(key)}: ["
        with atomic_path(self.path) as temporary, temporary.open("w", encoding="utf-8") as whole:
            separator = "\n"
            whole.write(opening)
            for part in parts:
                if part.exists():
                    with part.open(encoding="utf-8") as lines:
                        for line in lines:
                            whole.write(separator + line.rstrip("\n"))
                            separator = ",\n"
            whole.write("\n]" if head is None else "\n]}")
        for part in parts:
            part.unlink(missing_ok=True)
