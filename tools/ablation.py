"""Trains and tests the rows of an ablation over several seeds and prints a table of mean ± standard deviation.

    python tools/ablation.py --rows configs/ablations/possam_embedded.yaml --seeds 3 --output output/ablation_possam

Every run is a `tools/train_net.py` command that is printed; `--jobs` of them run side by side, one thread each. What is
complete is reused and what was interrupted goes on, so the same command can be given again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from sam_common.config import find_config
from sam_common.errors import UserError
from sam_common.files import write_text
from sam_common.tool import ToolParser, run_tool

TRAIN_NET = Path(__file__).resolve().parent / "train_net.py"
METRICS = ("PQ", "PQ_seen", "PQ_unseen", "PQ_th", "PQ_st", "SQ", "RQ")


@dataclass(frozen=True)
class Rows:
    """What is compared: overrides of one configuration, by label.

    Attributes:
        config: the configuration file of all rows.
        trained: rows that need a training of their own.
        tested: ways to test each trained row; the first one is what the training itself ends with.
    """

    config: str
    trained: dict[str, list[str]]
    tested: dict[str, list[str]]


def read_rows(path: str) -> Rows:
    """Reads the YAML of an ablation.

    Raises:
        UserError: the file is missing, is not plain YAML or has other keys.
    """
    file = find_config(path)
    try:
        rows = Rows(**yaml.safe_load(file.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise UserError(
            f"{file}: rows are given as config, trained and tested: {' '.join(str(error).split())}"
        ) from error
    for key in ("trained", "tested"):
        labels = getattr(rows, key)
        if not (isinstance(labels, dict) and labels and all(isinstance(words, list) for words in labels.values())):
            raise UserError(f"{file}: {key} must give at least one label a list of KEY, VALUE, ...")
    return rows


def run_row(rows: Rows, trained: str, seed: int, output: Path) -> dict[str, dict[str, float]]:
    """Trains one row with one seed and tests it in every way; test -> metrics."""
    folder = output / f"{trained.replace(' ', '_')}-seed{seed}"
    weights = folder / "model_final.pth"
    results = {}
    for number, (tested, options) in enumerate(rows.tested.items()):
        target = folder if number == 0 else folder / "tests" / tested.replace(" ", "_")
        mode = ["--resume"] if number == 0 else ["--eval-only"]
        extra = [] if number == 0 else ["MODEL.WEIGHTS", str(weights)]
        if not _results(target):
            keys = ["SEED", str(seed), "OUTPUT_DIR", str(target), *rows.trained[trained], *options, *extra]
            train_net(["--config-file", rows.config, "--engine", "fabric", *mode, "MODEL.DEVICE", "cpu", *keys])
        results[tested] = _results(target)
    return results


def train_net(arguments: list[str]) -> None:
    """Runs tools/train_net.py on one thread; what it prints is in its own log.

    Raises:
        UserError: it failed; the last line it printed says why.
    """
    print(shlex.join(["python", "tools/train_net.py", *arguments]), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(TRAIN_NET), *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"a run failed ({last}); the others go on, give the same command again")


def _results(folder: Path) -> dict[str, float]:
    """The metrics of a finished run: of the one data set and task it evaluated; empty where it has not finished."""
    files = sorted(folder.glob("inference/*/results.json"))
    if not files:
        return {}
    (task,) = json.loads(files[0].read_text())["results"].values()
    return task


def summarise(runs: dict[tuple[str, int], dict[str, dict[str, float]]], rows: Rows) -> list[list[str]]:
    """Table rows: trained row, test, and for each metric `mean ± sd` over seeds (the sample standard deviation)."""
    table = []
    for trained in rows.trained:
        for tested in rows.tested:
            cells = []
            for metric in METRICS:
                values = [tests[tested][metric] for (name, _), tests in runs.items() if name == trained]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            table.append([trained, tested, *cells])
    return table


def markdown(table: list[list[str]]) -> str:
    """The table as Markdown."""
    header = ["trained", "tested", *METRICS]
    lines = [header, ["---"] * 2 + ["--:"] * len(METRICS), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, metavar="YAML", help="a file of configs/ablations/")
    parser.add_argument("--seeds", type=int, default=3, help="how many, counted from 0 (3)")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (one for each core)")
    args = parser.parse_args(argv)
    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; give at least 1")

    rows, output = read_rows(args.rows), Path(args.output)
    keys = [(trained, seed) for seed in range(args.seeds) for trained in rows.trained]
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = {key: pool.submit(run_row, rows, *key, output) for key in keys}
    runs = {key: future.result() for key, future in futures.items()}
    text = markdown(summarise(runs, rows))
    write_text(output / "table.md", text + "\n")
    print(f"\n{text}\n\n{args.seeds} seeds; {output / 'table.md'}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
