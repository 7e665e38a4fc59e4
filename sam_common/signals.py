"""Signals that end a run in good order."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
"""What asks a run to end: people, terminals that are closed, schedulers. Windows has the first two."""


class StopFlag:
    """Set by one of `SIGNALS` inside `stop_on_signals`; `signum` is 0 until then."""

    signum = 0


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turns the first of `SIGNALS` into a flag and passes it on, as SIGTERM, to the processes that were started.

    A second SIGINT ends the process at once; the others may come any number of times: schedulers send them to every
    process. What nohup had ignored stays ignored. Outside the main thread, where Python allows no handlers, the flag is
    never set.
    """
    flag = StopFlag()

    def handle(signum: int, frame: FrameType | None) -> None:
        flag.signum = flag.signum or signum
        if signum == signal.SIGINT:
            signal.signal(signum, signal.default_int_handler)
        for child in multiprocessing.active_children():
            if not child.daemon and child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    ignored = {signum for signum in SIGNALS if signum != signal.SIGINT and signal.getsignal(signum) == signal.SIG_IGN}
    previous = {signum: signal.signal(signum, handle) for signum in SIGNALS if signum not in ignored}
    try:
        yield flag
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
