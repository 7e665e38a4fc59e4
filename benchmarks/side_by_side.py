"""What the benchmarks share: the peer and ours in turn in one run, and one JSON object a line for what came of it.

Command lines, stopwatches and processes of their own are here too.

Ratios mean something on a machine that others use too, times do not. With one thread CPU seconds are measured, which
other programs hardly change, with more the wall clock; of each the smallest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch

from detectron2_sam.commands.cli import ToolParser

T = TypeVar("T")
PEERS_VARIABLE = "BENCH_PEERS"


class Parser(ToolParser):
    """A benchmark's command line: the description as it is written, and options that are numbers with their defaults.

    To parse it sets the number of threads, 1 where `--threads` is no option.
    """

    def __init__(self, description: str | None, **numbers: float) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        for name, default in numbers.items():
            option = f"--{name.replace('_', '-')}"
            self.add_argument(option, type=type(default), default=default, help=f"({default})")

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        args = self.parse_args(argv)
        torch.set_num_threads(getattr(args, "threads", 1))
        return args


def apart(function: Callable[..., T], *args: Any) -> T:
    """What a function gives in a process of its own, which has done nothing before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args).result()


class Stopwatch:
    """The seconds that each pass of a stage has taken, a span of time `with watch(name)`.

    Args:
        clock: tells seconds.
        finish: waits until the device has done what it was given.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, finish: Callable[[], None] = lambda: None
    ) -> None:
        self.clock, self.finish = clock, finish
        self.taken: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.finish()
        start = self.clock()
        yield
        self.finish()
        self.taken[name].append(self.clock() - start)


def staged(owner: Any, method: str, name: str, span: Callable[[str], AbstractContextManager[Any]]) -> None:
    """Names the time that a method of an object takes: every call happens within `span(name)`."""
    call: Callable[..., Any] = getattr(owner, method)

    def named(*args: Any, **kwargs: Any) -> Any:
        with span(name):
            return call(*args, **kwargs)

    setattr(owner, method, named)


def peer_file(clone: str, path: str) -> Path | None:
    """A file of a peer's clone in the folder `$BENCH_PEERS`; None where it is not there."""
    found = Path(os.environ.get(PEERS_VARIABLE, ""), clone, path)
    return found if os.environ.get(PEERS_VARIABLE) and found.is_file() else None


def import_file(path: Path) -> ModuleType:
    """A Python file as a module of its own, an `__init__.py` as its package."""
    name = path.parent.name if path.stem == "__init__" else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def in_turn(
    peer: Callable[[], Any],
    ours: Callable[[], Any],
    *,
    repeats: int,
    threads: int = 1,
    finish: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Milliseconds of both and how many times ours is faster. `finish` waits for a GPU; then the wall clock counts."""
    clock, name = (time.process_time, "CPU") if threads == 1 and finish is None else (time.perf_counter, "wall")
    seconds: dict[Callable[[], Any], list[float]] = {peer: [], ours: []}
    for _ in range(repeats):
        for function, taken in seconds.items():
            start = clock()
            function()
            if finish is not None:
                finish()
            taken.append(clock() - start)
    theirs, mine = min(seconds[peer]), min(seconds[ours])
    times = {"peer_ms": round(1e3 * theirs, 2), "ours_ms": round(1e3 * mine, 2)}
    return {"clock": name, "threads": threads, "repeats": repeats, **times, "ratio": round(theirs / mine, 2)}


def tell(case: str, peer: str, measured: dict[str, Any], *, target: float | None = None) -> None:
    """Prints one line; whoever calls it has seen that both give the same."""
    print(json.dumps({"case": case, "peer": peer, "equal": True, **measured, "target": target}), flush=True)
