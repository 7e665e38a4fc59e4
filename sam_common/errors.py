"""The one exception of the project that is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something the user gave cannot be used: a file, a key, a word, a folder.

    The message is one line that says what was wrong, where, and what to do. Tools print it without a traceback and
    exit with status 2; in Python it is an ordinary `ValueError`.
    """
