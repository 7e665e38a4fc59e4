"""What a run says on the console and in log.txt."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning_fabric
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from tqdm import tqdm

from sam_common.engine.logging import GrowingFile
from sam_common.errors import Interrupted, UserError
from sam_common.text import LineFormatter

logger = logging.getLogger(__name__)


class _Console(logging.Handler):
    """Standard output, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # its reader has gone, or its disk is full; log.txt has it all
            tqdm.write(self.format(record), file=sys.stdout)


class _LogFile(logging.Handler):
    """A file that goes on where an earlier attempt ended."""

    def __init__(self, path: Path) -> None:
        self.file = GrowingFile(path)  # first: Python closes every handler that was made in the end
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        self.file.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        self.file.close()
        super().close()


@contextlib.contextmanager
def log_to(directory: Path, rank: int) -> Iterator[None]:
    """Logs to the console and `directory/log.txt`, which also tells how the run ended if by an exception.

    Ranks above 0 log to `log.txt.rank<R>`, and only warnings to the console.

    Raises:
        UserError: the directory cannot be made or written to; also raised by any line that is logged later.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}; choose another OUTPUT_DIR") from error
    file = _LogFile(directory / (f"log.txt.rank{rank}" if rank else "log.txt"))
    console = _Console()
    console.setLevel(logging.WARNING if rank else logging.INFO)
    root, level = logging.getLogger(), logging.getLogger().level
    for handler in (console, file):
        handler.setFormatter(LineFormatter("[%(asctime)s] %(message)s", datefmt="%m/%d %H:%M:%S"))
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        with contextlib.suppress(UserError):  # it may be this very file that ended the run
            file.handle(_last_words(error))
        raise
    finally:
        root.setLevel(level)
        for handler in (console, file):
            root.removeHandler(handler)
            handler.close()


def _last_words(error: Exception) -> logging.LogRecord:
    """How a run ended; with a traceback, unless all that it shows is what the line says."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    told = f"ended: {error}" if isinstance(error, UserError | Interrupted) else "ended by an unexpected error"
    trace = None if isinstance(cause, UserError | Interrupted | OSError) else sys.exc_info()
    return logger.makeRecord(__name__, logging.ERROR, "", 0, told, (), trace)


def describe(fabric: Fabric, kernels: str) -> str:
    """What runs, for the first line of the log: engine, device, precision, processes, kernels (`Method.kernels`),
    versions."""
    precision = fabric.strategy.precision
    kind = precision.precision if isinstance(precision, MixedPrecision) else "float32"
    device = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else str(fabric.device)
    return (
        f"engine: fabric {lightning_fabric.__version__}; device: {device}; precision: {kind}; "
        f"processes: {fabric.world_size}, {torch.get_num_threads()} threads each; "
        f"{f'{kernels}; ' if kernels else ''}torch {torch.__version__}"
    )
