"""What a training says of itself: a line on the log now and then, metrics.json and TensorBoard events."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from sam_common.errors import UserError
from sam_common.io.files import atomic_path, refuse_special_file
from sam_common.text import counted

logger = logging.getLogger(__name__)


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, MiB: allocated on the GPU, or resident in this process; 0 where no one counts it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


class MetricsWriter:
    """Every so often one line on the log, one JSON object in metrics.json, and TensorBoard events.

    A context manager that closes its files. Keys of metrics.json are Detectron2's: iteration, total_loss, each loss,
    lr, time, data_time, eta_seconds (seconds), max_mem (MiB), and `skipped`, the number of steps skipped so far. Times
    are medians over the iterations since the last line.

    Args:
        iteration: the last one done, -1 before the first. What an earlier attempt wrote of later ones is dropped, and
            so is what it measured after that one: it is measured again.

    Attributes:
        has_losses: whether an earlier attempt wrote the line of losses of that iteration.

    Raises:
        UserError: in all methods; a file cannot be written to.
    """

    def __init__(self, directory: Path, *, iteration: int, max_iter: int, device: torch.device) -> None:
        self.max_iter, self.device = max_iter, device
        path = directory / "metrics.json"
        self.has_losses = _rewind(path, iteration)
        self.file = GrowingFile(path)
        self.events = _Events(directory, iteration + 1)
        self.times: list[tuple[float, float]] = []

    def add_times(self, seconds: float, data_seconds: float) -> None:
        """Takes in the time that an iteration took, and the part of it that it waited for its batch."""
        self.times.append((seconds, data_seconds))

    def losses(self, iteration: int, losses: Sequence[Mapping[str, float]], *, lr: float, skipped: int) -> None:
        """Writes the means of the losses since the last line, and what else is told of the iterations."""
        times = zip(*(self.times or [(0.0, 0.0)]), strict=True)  # none of an iteration of an earlier attempt
        median_time, median_data_time = map(statistics.median, times)
        self.times.clear()
        eta = median_time * (self.max_iter - iteration - 1)
        means = {name: statistics.fmean(entry[name] for entry in losses) for name in (losses or [{}])[0]}
        scalars: dict[str, float] = {"total_loss": sum(means.values()), **means} if means else {}
        scalars |= {"lr": lr, "time": median_time, "data_time": median_data_time, "eta_seconds": eta}
        scalars |= {"max_mem": peak_memory(self.device), "skipped": skipped}
        self.scalars(iteration, scalars)
        # A loss of an intermediate prediction point ends in its number; the line shows the final ones.
        shown = {name: value for name, value in scalars.items() if "loss" in name and not name[-1].isdigit()}
        logger.info(
            "eta: %s  iter: %d/%d  %s  time: %.3f  data: %.3f  lr: %.3g  mem: %dM%s",
            datetime.timedelta(seconds=round(eta)),
            iteration + 1,
            self.max_iter,
            "  ".join(f"{name}: {value:.4g}" for name, value in shown.items()),
            median_time,
            median_data_time,
            lr,
            scalars["max_mem"],
            f"  skipped: {skipped}" if skipped else "",
        )

    def scalars(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Writes numbers of one iteration to metrics.json and TensorBoard."""
        self.file.write(json.dumps({"iteration": iteration, **scalars}).encode() + b"\n")
        self.events.write(iteration, scalars)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.events.file.close()


class GrowingFile:
    """A file that grows while a run goes on, so that a reader finds there what was written so far.

    Raises:
        UserError: the file is special, or cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_special_file(path)
        with self._one_line():
            self.file = open(path, "ab")  # noqa: SIM115 (closed by `close`)

    def write(self, data: bytes) -> None:
        with self._one_line():
            self.file.write(data)
            self.file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written is tried again
            self.file.close()

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error


class _Events:
    """TensorBoard's file of scalars. Its own writer is a thread, whose errors nobody could catch.

    Args:
        start: TensorBoard forgets what other files of the folder have of this iteration and later ones.
    """

    def __init__(self, directory: Path, start: int) -> None:
        self.file = GrowingFile(
            directory / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        )
        self.records = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        self._write(step=start, session_log=SessionLog(status=SessionLog.START))

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step=iteration, summary=Summary(value=values))

    def _write(self, **content: Any) -> None:
        self.records.write(Event(wall_time=time.time(), **content).SerializeToString())


def _rewind(path: Path, iteration: int) -> bool:
    """Keeps what was written up to an iteration, of that one the line of its losses, and tells whether there is one; a
    line that a kill cut short is dropped."""
    if not path.is_file():
        return False
    kept, damaged, has_losses = [], 0, False
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            continue
        try:
            entry = json.loads(line)
            is_its_losses = entry["iteration"] == iteration and "lr" in entry
            if entry["iteration"] < iteration or is_its_losses:
                kept.append(line)
                has_losses |= is_its_losses
        except (ValueError, KeyError, TypeError):
            damaged += 1
    if damaged:
        logger.warning("%s: left out %s that cannot be read", path, counted(damaged, "line"))
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(kept))
    return has_losses
