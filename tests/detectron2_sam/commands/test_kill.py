"""Training killed at twenty random points: whatever it was doing, --resume ends with the weights of a quiet run."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from detectron2_sam.commands import train as train_net
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.engine.trainer import Trainer
from tests.detectron2_sam.commands.test_train import assert_same_run
from tests.support import standin
from tests.support.standin import arguments

KILLS = 20


def train(words: list[str], last_call: float = math.inf) -> int:
    """Trains, and dies at that function call of `Trainer.train`, as when memory runs out; the calls that there were."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"
        if calls > last_call:
            os.kill(os.getpid(), signal.SIGKILL)

    original = Trainer.train

    def counted(trainer: Trainer, *args: Any) -> Any:
        sys.setprofile(count)
        try:
            return original(trainer, *args)
        finally:
            sys.setprofile(None)

    with mock.patch.object(Trainer, "train", counted):
        train_net.main(words)
    return calls


def train_here(words: list[str], last_call: float, result: Connection) -> None:
    """`train` in a process of its own, where the stand-in is not known yet."""
    standin.install()
    result.send(train(words, last_call))


def train_there(words: list[str], last_call: float = math.inf) -> int | None:
    """The calls of a training in a process of its own; None where it was killed."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=train_here, args=(words, last_call, sender))
    process.start()
    sender.close()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return receiver.recv() if process.exitcode == 0 else None


@pytest.fixture(autouse=True)
def stand_in() -> Iterator[None]:
    with standin.installed():
        yield


def test_a_kill_at_any_point_costs_nothing_but_time(tmp_path: Path) -> None:
    """Points are drawn over all function calls of a training with checkpoints and evaluations: between the bytes of a
    checkpoint, in a step, in a line of the log. Weights, moments, counters and the iterations of metrics.json are
    those of the quiet run."""
    every_two = ("SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "3")
    calls = train_there(arguments(tmp_path / "quiet", *every_two))
    assert calls is not None
    draw, found = random.Random(0), set()
    for kill in range(KILLS):
        output = tmp_path / str(kill)
        last_call = draw.randrange(int(0.95 * calls))  # a progress bar makes some calls more or less each time
        assert train_there(arguments(output, *every_two), last_call) is None
        pointer = output / "last_checkpoint"
        found.add(read_checkpoint(output / pointer.read_text())["iteration"] if pointer.exists() else -1)
        train_net.main(arguments(output, *every_two, flags=("--resume",)))
        assert_same_run(tmp_path / "quiet", output)
        assert iterations(output) == iterations(tmp_path / "quiet")
    assert len(found) >= 3  # before the first checkpoint, between others, after the last


def iterations(output: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in (output / "metrics.json").read_text().splitlines()]
