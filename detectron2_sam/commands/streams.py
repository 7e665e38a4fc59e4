"""Standard streams that never end a run: what is printed doesn't decide what is computed."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any


def steady_streams() -> None:
    """Makes printing safe in this process, whatever its streams are.

    A letter that a stream's encoding lacks is printed as its escape, such as `\\u2192`. Where the reader has gone
    (`detectron2-sam predict … | head`), or the disk is full, the rest is printed to nowhere. A stream that was closed
    (`>&-`) is opened on nothing; else the next file that is opened would take its place.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, errors="backslashreplace"))  # noqa: SIM115
        elif mode == "w" and stream is getattr(sys, f"__{name}__"):  # not one that a test or a notebook put there
            setattr(sys, name, _steady(stream))
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of damage that the picture survives


def lost_output() -> OSError | None:
    """Why a part of what was printed is lost; None where it is not, or where its reader has gone."""
    sys.stdout.flush()
    error = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "error", None)
    return None if isinstance(error, BrokenPipeError) else error


class _Steady(io.FileIO):
    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            return memoryview(data).nbytes


def _steady(stream: Any) -> io.TextIOWrapper:
    stream.flush()
    raw = _Steady(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )
