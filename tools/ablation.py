"""Trains and tests the rows of an ablation over several seeds and prints a table of mean ± standard deviation.

    python tools/ablation.py --rows configs/ablations/possam_embedded.yaml --seeds 3 --output output/ablation_possam

The rows, their metrics and the ways to test them are the file's. Every run is a `tools/train_net.py` command that is
printed; `--jobs` of them run side by side, one thread each. What is complete is reused and what was interrupted goes
on, so the same command can be given again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sam_common.config import find_config
from sam_common.errors import UserError
from sam_common.files import write_text
from sam_common.tool import ToolParser, run_tool

TRAIN_NET = Path(__file__).resolve().parent / "train_net.py"
_MISSING = "–"


@dataclass(frozen=True)
class Row:
    """A configuration file and overrides of it, KEY, VALUE, …"""

    config: str
    options: list[str]


@dataclass(frozen=True)
class Rows:
    """What is compared.

    Attributes:
        metrics: the columns, each "task/metric" of `results.json`.
        trained: label -> a row that needs a training of its own for every seed.
        untrained: label -> a row that is tested as it is, once.
        tested: label -> overrides for testing a row; the first is what the training itself ends with.
        seed_keys: the keys of the configuration that are given the seed.
    """

    metrics: list[str]
    trained: dict[str, Row]
    untrained: dict[str, Row]
    tested: dict[str, list[str]]
    seed_keys: list[str]


def read_rows(path: str) -> Rows:
    """Reads the YAML of an ablation: `metrics`, `trained`, and where needed `config`, `untrained` and these:

        tested: label -> overrides for testing a row.
        variants: label -> overrides with which each trained row is trained; rows become "row, variant".
        seed_keys: what is given the seed; [SEED] unless told otherwise.

    A row is a list of overrides of `config`, or the name of a configuration file of its own.

    Raises:
        UserError: the file is missing, is not plain YAML or has other keys or values.
    """
    file = find_config(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no plain YAML: {' '.join(str(error).split())}") from error
    known = {"config", "metrics", "trained", "untrained", "tested", "variants", "seed_keys"}
    if not (isinstance(content, dict) and set(content) <= known):
        strange = ", ".join(map(str, set(content) - known)) if isinstance(content, dict) else repr(content)
        raise UserError(f"{file}: rows are given as {', '.join(sorted(known))}, not {strange}")
    metrics, seed_keys = content.get("metrics"), content.get("seed_keys", ["SEED"])
    if not (isinstance(metrics, list) and metrics and all(isinstance(m, str) and m.count("/") == 1 for m in metrics)):
        raise UserError(f"{file}: metrics must list at least one task/metric, such as panoptic_seg/PQ")
    if not (isinstance(seed_keys, list) and seed_keys and all(isinstance(key, str) for key in seed_keys)):
        raise UserError(f"{file}: seed_keys must list at least one key, such as SEED")
    tested, variants = (_overrides(content, key, str(file)) for key in ("tested", "variants"))
    trained, untrained = (
        _rows(content.get(key, {}), content.get("config"), f"{file}: {key}") for key in ("trained", "untrained")
    )
    if not trained | untrained:
        raise UserError(f"{file}: trained must give at least one label a row")
    trained = {
        f"{label}, {variant}" if variant else label: Row(row.config, [*row.options, *options])
        for variant, options in variants.items()
        for label, row in trained.items()
    }
    return Rows(metrics, trained, untrained, tested, seed_keys)


def _overrides(content: dict[str, Any], key: str, file: str) -> dict[str, list[str]]:
    """label -> KEY, VALUE, …; without the key one label, "", that overrides nothing."""
    given = content.get(key, {"": []})
    if not (isinstance(given, dict) and given and all(isinstance(words, list) for words in given.values())):
        raise UserError(f"{file}: {key} must give at least one label a list of KEY, VALUE, ...")
    return {str(label): [str(word) for word in words] for label, words in given.items()}


def _rows(entries: object, config: str | None, where: str) -> dict[str, Row]:
    if not isinstance(entries, dict):
        raise UserError(f"{where} must give labels to rows")
    rows = {}
    for label, entry in entries.items():
        if isinstance(entry, str):
            rows[str(label)] = Row(entry, [])
        elif isinstance(entry, list) and config:
            rows[str(label)] = Row(config, [str(word) for word in entry])
        else:
            raise UserError(
                f"{where}, {label}: give the name of a configuration, or a list of KEY, VALUE, ... to config"
            )
    return rows


def run_row(rows: Rows, label: str, seed: int, output: Path, device: str) -> dict[str, dict[str, float]]:
    """Trains a row with one seed, if it is to be trained, and tests it in every way; test -> metrics."""
    folder = output / f"{_folder_name(label)}-seed{seed}"
    trains, row = label in rows.trained, (rows.trained | rows.untrained)[label]
    results = {}
    for number, (tested, options) in enumerate(rows.tested.items()):
        target = folder if number == 0 else folder / "tests" / _folder_name(tested)
        mode = "--resume" if trains and number == 0 else "--eval-only"
        weights = ["MODEL.WEIGHTS", str(_trained_weights(folder))] if trains and number else []
        if not _results(target):
            seeded = [word for key in rows.seed_keys for word in (key, str(seed))]
            keys = [*seeded, "OUTPUT_DIR", str(target), *row.options, *options, *weights]
            train_net(["--config-file", row.config, "--engine", "fabric", mode, "MODEL.DEVICE", device, *keys])
        results[tested] = _results(target)
    return results


def _trained_weights(folder: Path) -> Path:
    """What the training itself tested: the weights that a validation chose, else the last."""
    best = folder / "model_best.pth"
    return best if best.is_file() else folder / "model_final.pth"


def _folder_name(label: str) -> str:
    return re.sub(r"\W+", "_", label)


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
    """The metrics of a finished run, by task/metric, of the one data set it evaluated; empty where it has not finished.

    What is no number there is left out.
    """
    files = sorted(folder.glob("inference/*/results.json"))
    if not files:
        return {}
    tasks = json.loads(files[0].read_text(encoding="utf-8"))["results"].items()
    return {f"{task}/{name}": v for task, metrics in tasks for name, v in metrics.items() if v is not None}


def summarise(runs: dict[tuple[str, int], dict[str, dict[str, float]]], rows: Rows) -> list[list[str]]:
    """Table rows: row, test, and for each metric `mean ± sd` over seeds (the sample standard deviation)."""
    table = []
    for label in rows.untrained | rows.trained:
        for tested in rows.tested:
            of_seeds = [tests[tested] for (name, _), tests in runs.items() if name == label]
            cells = [_mean_and_deviation([found[m] for found in of_seeds if m in found]) for m in rows.metrics]
            table.append([label, tested, *cells])
    return table


def _mean_and_deviation(values: list[float]) -> str:
    if not values:
        return _MISSING
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def markdown(table: list[list[str]], metrics: Sequence[str]) -> str:
    """The table as Markdown; metrics of several tasks are named with them."""
    tasks = {metric.partition("/")[0] for metric in metrics}
    names = [metric.partition("/")[2] for metric in metrics] if len(tasks) == 1 else metrics
    lines = [["row", "tested", *names], ["---"] * 2 + ["--:"] * len(metrics), *table]
    if all(line[1] == "" for line in table):  # there is but one way to test them
        lines = [[line[0], *line[2:]] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, metavar="YAML", help="a file of configs/ablations/")
    parser.add_argument("--seeds", type=int, default=3, help="how many, counted from 0 (3)")
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side (one for each core)")
    parser.add_argument("--device", default="cpu", help="MODEL.DEVICE of the runs (cpu)")
    args = parser.parse_args(argv)
    for name in ("seeds", "jobs"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; give at least 1")

    rows, output = read_rows(args.rows), Path(args.output)
    keys = [(label, 0) for label in rows.untrained]
    keys += [(label, seed) for seed in range(args.seeds) for label in rows.trained]
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = {key: pool.submit(run_row, rows, *key, output, args.device) for key in keys}
    runs = {key: future.result() for key, future in futures.items()}
    text = markdown(summarise(runs, rows), rows.metrics)
    write_text(output / "table.md", text + "\n")
    print(f"\n{text}\n\n{args.seeds} seeds; {output / 'table.md'}")


if __name__ == "__main__":
    sys.exit(run_tool(main))
