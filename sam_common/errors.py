"""The exceptions that end a command without a traceback."""

from __future__ import annotations

from sam_common.text import one_line


class UserError(ValueError):
    """Something the user gave cannot be used: a file, a key, a word, a folder.

    The message is one line that says what was wrong, where, and what to do. Commands print it without a traceback and
    exit with status 2; in Python it is an ordinary `ValueError`. Its text stays one line whatever it quotes.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class Interrupted(Exception):
    """A run ended early because a signal asked for it, after a checkpoint was written.

    Attributes:
        signum: the signal; commands exit with 128 + signum, as shells report it.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message, signum)
        self.message, self.signum = message, signum

    def __str__(self) -> str:
        return one_line(self.message)
