"""What a reader leaves out of a file or corrects in it: counted by kind, logged once in a run."""

from __future__ import annotations

import functools
import logging
from collections import defaultdict

from sam_common.errors import UserError
from sam_common.text import some

logger = logging.getLogger(__name__)

_SHOWN = 8


class Remarks:
    """The entries of a file or folder that a reader left out or corrected, by kind.

    A kind is a phrase about one entry that says what becomes of it: "an annotation without a mask, left out".

    Args:
        source: the file or folder, for messages.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.kinds: dict[str, list[object]] = defaultdict(list)

    def add(self, kind: str, name: object) -> None:
        """Counts an entry; `name` is its id, or whatever else finds it in the file."""
        self.kinds[kind].append(name)

    def warn(self) -> None:
        """Logs a warning for each kind, with the number of entries and the first of them."""
        for line in self._lines():
            log_once(f"{self.source}: {line}")

    def require_some(self, is_left: bool) -> None:
        """Raises UserError, with all remarks, unless something is left to train or test on."""
        if not is_left:
            raise UserError(f"{self.source}: nothing is left to train or test on{self.reasons()}")

    def reasons(self) -> str:
        """All remarks after a colon; "" where there are none."""
        return f": {'; '.join(self._lines())}" if self.kinds else ""

    def _lines(self) -> list[str]:
        return [f"{len(names)} × {kind}: {some(names, _SHOWN)}" for kind, names in self.kinds.items()]


@functools.cache
def log_once(message: str, level: int = logging.WARNING) -> None:
    """Logs a message once, however often a data set is read in a run."""
    logger.log(level, message)
