"""What the benchmarks share: the peer and ours in turn in one run, and one JSON object a line for what came of it.

Ratios mean something on a machine that others use too, times do not. With one thread CPU seconds are measured, which
other programs hardly change, with more the wall clock; of each the smallest.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

PEERS_VARIABLE = "BENCH_PEERS"


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
