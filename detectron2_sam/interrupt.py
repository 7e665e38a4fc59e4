"""Ctrl-C while a command still imports what it needs. Only the standard library is imported here."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def silent_interrupt() -> Iterator[None]:
    """Ctrl-C ends the process at once, without a word, as 128 + its number.

    Raised as an exception in the middle of an import it would show a traceback, or abort in C++. Outside the main
    thread, where Python allows no handlers, nothing changes; nor does it where Ctrl-C is ignored.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda signum, frame: os._exit(128 + signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
