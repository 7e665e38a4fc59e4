"""What a training says of itself: a line on the log now and then, metrics.json and TensorBoard events."""

from __future__ import annotations

import datetime
import json
import logging
import math
import resource
import statistics
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from sam_common.io.files import write_text

logger = logging.getLogger(__name__)


def peak_memory(device: torch.device) -> int:
    """The most memory used so far, MiB: allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


class MetricsWriter:
    """Every `period` iterations: one line on the log, one JSON object in metrics.json, and TensorBoard events.

    A context manager that closes its files. Losses are means over the iterations since the last line that were finite;
    times are medians. Keys of metrics.json are Detectron2's: iteration, total_loss, each loss, lr, time, data_time,
    eta_seconds (seconds), max_mem (MiB), and `skipped`, the number of steps skipped so far. What an earlier attempt
    wrote of iterations from `start_iteration` on is dropped.
    """

    def __init__(
        self, directory: Path, *, start_iteration: int, max_iter: int, device: torch.device, period: int = 20
    ) -> None:
        self.max_iter, self.device, self.period = max_iter, device, period
        _rewind(directory / "metrics.json", start_iteration)
        self.file = open(directory / "metrics.json", "a", encoding="utf-8")  # noqa: SIM115 (closed on exit)
        self.events = SummaryWriter(str(directory), purge_step=start_iteration)
        self.losses: list[Mapping[str, float]] = []
        self.times: deque[tuple[float, float]] = deque(maxlen=period)

    def step(
        self, iteration: int, losses: Mapping[str, float], *, lr: float, time: float, data_time: float, skipped: int
    ) -> None:
        """Takes in one iteration; `time` and `data_time` are the seconds it took and those it waited for its batch."""
        self.times.append((time, data_time))
        if all(math.isfinite(value) for value in losses.values()):
            self.losses.append(losses)
        if (iteration + 1) % self.period and iteration + 1 < self.max_iter:
            return
        median_time, median_data_time = (statistics.median(column) for column in zip(*self.times, strict=True))
        eta = median_time * (self.max_iter - iteration - 1)
        scalars: dict[str, float] = {}
        if self.losses:
            means = {name: statistics.fmean(entry[name] for entry in self.losses) for name in losses}
            scalars = {"total_loss": sum(means.values()), **means}
        scalars |= {"lr": lr, "time": median_time, "data_time": median_data_time, "eta_seconds": eta}
        scalars |= {"max_mem": peak_memory(self.device), "skipped": skipped}
        self.scalars(iteration, scalars)
        self.losses.clear()
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
        self.file.write(json.dumps({"iteration": iteration, **scalars}) + "\n")
        self.file.flush()
        for name, value in scalars.items():
            self.events.add_scalar(name, value, iteration)
        self.events.flush()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.events.close()


def _rewind(path: Path, start_iteration: int) -> None:
    """Keeps the lines of iterations before `start_iteration`; a line that a kill cut short is dropped."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("}\n")]
        write_text(path, "".join(line for line in whole if json.loads(line)["iteration"] < start_iteration))
