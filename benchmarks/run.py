"""Runs the benchmarks one after the other and prints one table of the ratios.

    python -m benchmarks.run                      # those that fit into ten minutes
    python -m benchmarks.run --minutes 60 mean_iou deformable_attention

The JSON lines of each script are shown as they come. One that is not done when the time is up is ended; the table names
it. Peers that pip cannot give are looked for in the folder of clones `$BENCH_PEERS`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("cases", "run", "scenes", "side_by_side")
NO_RATIO = ("end_to_end", "evaluation_memory", "memory", "where_time_goes")
COLUMNS = ("case", "ratio", "target", "peer")
LONGEST = ("sam_encoder", "plug_branches", "amsam_embedding_cache")


def names() -> list[str]:
    """The scripts, those that take longest last."""
    found = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in (*PARTS, *NO_RATIO))
    return sorted(found, key=lambda name: name in LONGEST)


def run(name: str, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """What a script printed, and "" or why it did not come to its end."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as script:
        try:
            printed, _ = script.communicate(timeout=max(seconds, 0.1))
            problem = f"exit status {script.returncode}" if script.returncode else ""
        except BaseException as stopped:
            os.killpg(script.pid, signal.SIGKILL)  # and its own processes, which would keep its output open
            if not isinstance(stopped, subprocess.TimeoutExpired):
                raise
            printed, problem = script.communicate()[0], "did not fit"
    print(printed, end="", flush=True)
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")], problem


def main() -> int:
    """Prints the table; 1 if a script failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", help=f"all where none is named: {', '.join(names())}")
    parser.add_argument("--minutes", type=float, default=10)
    args = parser.parse_args()
    if unknown := set(args.scripts) - set(names()):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    end = time.monotonic() + 60 * args.minutes
    rows, failed = [], False
    for name in args.scripts or names():
        lines, problem = run(name, end - time.monotonic())
        rows += [[name, *(line.get(column) for column in COLUMNS)] for line in lines]
        if problem:
            rows.append([name, problem])
            failed |= problem != "did not fit"
    print(tabulate(rows, ["benchmark", *COLUMNS], tablefmt="github"))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
