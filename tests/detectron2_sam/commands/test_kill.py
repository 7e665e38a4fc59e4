"""Runs that are ended at any operation on their files, by whatever: --resume leaves what a quiet run does, bit for bit.

By default one point of each run of the stand-in is drawn. `make kill` draws many, also of the three methods.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from amsam.data.worms import write_worms
from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.commands.prepare.generated import prepare
from detectron2_sam.commands.train import build
from sam_common.engine.build import build_plan
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.engine.logging import GrowingFile
from tests.amsam import test_run as amsam_run
from tests.detectron2_sam.commands.test_train import assert_same
from tests.plug import test_run as plug_run
from tests.possam import test_run as possam_run
from tests.support import standin
from tests.support.workers import quick_start

POINTS = os.environ.get("DETECTRON2_SAM_KILL_POINTS", "")
"""How many of each case, or `all`, and the methods too; by default one, of the stand-in alone."""

TIMES = {"time", "data_time", "eta_seconds", "max_mem"}
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.chmod"}
EVENTS = {"kill": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT, "full disk": None}
PERIODS = [(2, 2), (2, 3), (3, 3), (3, 2), (0, 1)]
"""Of checkpoints and of evaluations."""


def befall(output: Path, point: int, event: str) -> list[str]:
    """Lets an event befall this process before that operation on the files of a folder; returns those there were."""
    done: list[str] = []

    def before(operation: str, path: object) -> None:
        if not str(path).startswith(str(output)) or str(path) == str(output):
            return
        done.append(f"{operation} {Path(str(path)).name}")
        if len(done) - 1 != point:
            return
        signum = EVENTS[event]
        if signum is None:
            raise OSError(28, "No space left on device", str(path))
        os.kill(os.getpid(), signum)

    def audit(name: str, args: tuple[Any, ...]) -> None:
        reads = name == "open" and not (args[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if name in OPERATIONS and not reads:
            before(name, args[0])

    class Writing:
        """A file whose writes are operations too."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> None:
            before("write", self.file.name)
            self.file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    original = GrowingFile.__init__

    def opened(self: GrowingFile, path: Path) -> None:
        original(self, path)
        self.file = Writing(self.file)  # type: ignore[assignment]

    GrowingFile.__init__ = opened  # type: ignore[method-assign]
    sys.addaudithook(audit)
    return done


def train_here(
    words: Sequence[str], environment: dict[str, str], output: Path, point: int, event: str, result: Connection
) -> None:
    """A training in a process of its own, where the stand-in is not known yet."""
    os.environ.update(environment)
    standin.install()
    done = befall(output, point, event)
    with mock.patch.object(build, "build_plan", lambda cfg: replace(build_plan(cfg), log_period=3)):
        status = run_tool(lambda: train_net.main(words))
    result.send((status, done))


def train(words: Sequence[str], output: Path, point: int = -1, event: str = "kill") -> tuple[int, list[str]]:
    """Exit status and operations on files of a training, during which something happens; no operations if it died."""
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    environment = {key: os.environ[key] for key in ("DETECTRON2_DATASETS",) if key in os.environ}
    process = context.Process(target=train_here, args=(words, environment, output, point, event, sender))
    process.start()
    sender.close()
    process.join()
    return receiver.recv() if process.exitcode == 0 else (process.exitcode or 0, [])


def outcome(output: Path) -> dict[str, Any]:
    """All that a run leaves and that can be the same twice."""
    content: dict[str, Any] = {}
    for path in output.glob("*.pth"):
        content[path.name] = read_checkpoint(path)
        del content[path.name]["config"]  # holds OUTPUT_DIR
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    content["metrics.json"] = [{key: line[key] for key in line if key not in TIMES} for line in lines]
    for path in output.glob("inference/*/results.json"):
        report = json.loads(path.read_text())
        content[path.parent.name] = {key: report[key] for key in report if key != "checkpoint"}
    return content


def assert_all_are_made_up_for(words: Callable[..., list[str]], folder: Path) -> None:
    """Args: words: OUTPUT_DIR, flags -> the command line."""
    status, operations = train(words(folder / "quiet"), folder / "quiet")
    assert status == 0
    quiet, count = outcome(folder / "quiet"), len(operations)
    for event in EVENTS:
        draw = random.Random(f"{folder.name} {event}")
        points = range(count) if POINTS == "all" else sorted(draw.sample(range(count), int(POINTS or 1)))
        for point in points:
            output = folder / f"{event} {point}"
            first, _ = train(words(output), output, point, event)
            second, _ = train(words(output, flags=("--resume",)), output)
            told = f"{event} before {operations[point]}, operation {point} of {count}: {first}, {second}"
            assert second == 0 and (event != "full disk" or first == 2), told
            found = outcome(output)
            assert quiet.keys() <= found.keys(), told
            assert_same(quiet, {name: found[name] for name in quiet}, told)
            assert not list(output.rglob(".detectron2-sam-*")), told
            shutil.rmtree(output)
        print(f"{folder.name}: {event} at {len(points)} of {count} points")


@pytest.fixture(autouse=True)
def stand_in() -> Iterator[None]:
    with standin.installed():
        multiprocessing.set_forkserver_preload([__name__])
        yield


@pytest.mark.parametrize("checkpoints,evaluations", PERIODS if POINTS else PERIODS[:2])
@pytest.mark.parametrize("data", ["standin", "chosen"])
def test_a_run_ended_at_any_point_is_made_up_for(data: str, checkpoints: int, evaluations: int, tmp_path: Path) -> None:
    """Checkpoints, the best one, metrics.json and results are those of the quiet run; nothing half written stays."""
    keys = ("SOLVER.CHECKPOINT_PERIOD", str(checkpoints), "TEST.EVAL_PERIOD", str(evaluations))

    def words(output: Path, flags: tuple[str, ...] = ()) -> list[str]:
        return standin.arguments(output, *keys, "DATASETS.TRAIN", f"('{data}',)", flags=flags)

    assert_all_are_made_up_for(words, tmp_path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Scenes and worms to train and to test on, 64 pixels wide."""
    root = tmp_path_factory.mktemp("world")
    prepare(root, train=4, test=2, size=64)
    for split, first_index, count in (("pool", 0, 6), ("test", 50, 2)):
        write_worms(root / split, seed=0, first_index=first_index, count=count, size=64)
    with pytest.MonkeyPatch.context() as patch, quick_start():
        patch.setenv("DETECTRON2_DATASETS", str(root))
        yield root


@pytest.mark.skipif(not POINTS, reason="takes long: make kill")
@pytest.mark.parametrize("checkpoints,evaluations", [(2, 2), (2, 3)])
@pytest.mark.parametrize("method", ["possam", "plug", "amsam"])
def test_a_run_of_a_method_is_made_up_for(
    method: str, checkpoints: int, evaluations: int, world: Path, tmp_path: Path
) -> None:
    """The same of PosSAM, PLUG and AM-SAM, four iterations on the embedded encoders."""
    keys = ("SOLVER.CHECKPOINT_PERIOD", str(checkpoints), "TEST.EVAL_PERIOD", str(evaluations), "SOLVER.MAX_ITER", "4")

    def words(output: Path, flags: tuple[str, ...] = ()) -> list[str]:
        if method == "possam":
            return possam_run.arguments(output, *keys, flags=flags)
        if method == "plug":
            return plug_run.arguments(output, *keys, flags=flags)
        return amsam_run.arguments(world, output, *keys, flags=flags)

    assert_all_are_made_up_for(words, tmp_path)
