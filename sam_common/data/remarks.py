"""What a reader leaves out of a file, or reads otherwise than it stands there: counted by kind, said once in a run."""

from __future__ import annotations

import functools
import logging
from collections import defaultdict

from sam_common.errors import UserError
from sam_common.text import some

logger = logging.getLogger(__name__)

_SHOWN = 8


class Remarks:
    """The entries of a file or folder that a reader has something to say about, by kind.

    A kind is words for one entry, what becomes of it included: "a crowd, which is no target".

    Args:
        source: the file or folder, for messages.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.kinds: dict[str, list[object]] = defaultdict(list)

    def add(self, kind: str, name: object) -> None:
        """Counts an entry, by its id or what else finds it in the file."""
        self.kinds[kind].append(name)

    def tell(self) -> None:
        """Logs a warning for each kind, with the number of entries and the first of them."""
        for line in self._lines():
            log_once(f"{self.source}: {line}")

    def refuse_nothing(self, left: bool) -> None:
        """Raises UserError, with all that was said, unless something is left to train or test on."""
        if not left:
            raise UserError(f"{self.source}: nothing is left to train or test on{self.reasons()}")

    def reasons(self) -> str:
        """All that there is to say, behind a colon; "" where that is nothing."""
        return f": {'; '.join(self._lines())}" if self.kinds else ""

    def _lines(self) -> list[str]:
        return [f"{len(names)} × {kind}: {some(names, _SHOWN)}" for kind, names in self.kinds.items()]


@functools.cache
def log_once(message: str, level: int = logging.WARNING) -> None:
    """Logs a message, however often a data set is read in a run."""
    logger.log(level, message)
