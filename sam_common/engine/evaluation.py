"""The evaluation loop and its report, for any model, loader and evaluator."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tqdm import tqdm

from sam_common.contracts import Batch, Model
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.evaluation.class_groups import GROUPS, published_classes
from sam_common.evaluation.evaluator import Evaluators, Results
from sam_common.io.files import write_text
from sam_common.layers.processes import gather, is_main_process
from sam_common.structures import Vocabulary

logger = logging.getLogger(__name__)


def evaluate(
    model: Model,
    loader: Iterable[Batch],
    evaluators: Evaluators,
    *,
    name: str,
    autocast: AbstractContextManager,
    stopped: Callable[[], bool],
) -> Results | None:
    """Runs this rank's images through the model and judges those of all ranks together.

    Args:
        loader: the images of this rank; together the ranks hold each image once.
        name: of the data set, for the progress bar.
        autocast: the precision to compute in.
        stopped: asked before every batch; True ends the loop.

    Returns:
        The results, the same on every rank; None when any rank was stopped.
    """
    training = model.training
    model.eval()
    evaluators.reset()
    # Not inference_mode: what a model caches here (text embeddings) must still serve in training.
    with torch.no_grad(), autocast:
        for batch in tqdm(loader, desc=name, leave=False, disable=None if is_main_process() else True):
            if stopped():
                break
            evaluators.process(batch, model(batch))
    model.train(training)
    if any(gather(stopped())):
        evaluators.reset()
        return None
    return evaluators.evaluate()


def flatten(results: dict[str, Results]) -> dict[str, float]:
    """The metrics of all data sets in one dictionary: `task/metric`, with the data set in front when there are several.

    Metrics of single classes (their names hold a `-`) and those that are no number are left out.
    """
    return {
        f"{dataset}/{task}/{name}" if len(results) > 1 else f"{task}/{name}": value
        for dataset, tasks in results.items()
        for task, metrics in tasks.items()
        for name, value in metrics.items()
        if "-" not in name and math.isfinite(value)
    }


def copypaste(results: Results) -> list[str]:
    """Three lines per task for a spreadsheet, as Detectron2 prints them; metrics of single classes are left out."""
    lines = []
    for task, metrics in results.items():
        means = {name: value for name, value in metrics.items() if "-" not in name}
        lines += [
            f"copypaste: Task: {task}",
            f"copypaste: {','.join(means)}",
            f"copypaste: {','.join(f'{value:.4f}' for value in means.values())}",
        ]
    return lines


def dataset_facts(spec: DatasetSpec, training_vocabulary: Vocabulary | None) -> dict[str, Any]:
    """What a report says of a data set: its name, kind of truth, files and classes, and which are seen and unseen."""
    vocabulary = spec.load_vocabulary()
    return {
        "dataset": spec.name,
        "truth": spec.truth,
        "files": dict(spec.files),
        "vocabulary": [category.name for category in vocabulary],
        "classes": published_classes(vocabulary, training_vocabulary),
    }


def format_table(results: Results) -> str:
    """One table of all tasks: a row for each metric, a column for each group of classes.

    Metrics of single classes are left out; the row of `n` says of how many classes a mean is. Where nothing is about a
    group of classes, a row for each task, a column for each metric.
    """
    results = {task: {name: v for name, v in metrics.items() if "-" not in name} for task, metrics in results.items()}
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for task, metrics in results.items():
        for name, value in metrics.items():
            group = next((g for g, suffix in GROUPS.items() if suffix and name.endswith(suffix)), "all")
            metric = name.removesuffix(GROUPS[group])
            cells.setdefault((task, "classes" if metric == "n" else metric), {})[group] = _number(metric, value)
    groups = [group for group in GROUPS if any(group in row for row in cells.values())]
    if groups == ["all"]:
        return _table_of_tasks(results)
    align = ("left", "left", *("right" for _ in groups))
    rows = [[*key, *(row.get(group, "") for group in groups)] for key, row in cells.items()]
    return tabulate(rows, ["task", "metric", *groups], tablefmt="github", disable_numparse=True, colalign=align)


def _table_of_tasks(results: Results) -> str:
    names = list(dict.fromkeys(name for metrics in results.values() for name in metrics))
    rows = [[task, *(_number(name, v[name]) if name in v else "" for name in names)] for task, v in results.items()]
    align = ("left", *("right" for _ in names))
    header = ["task", *(name.replace("_", "\n") for name in names)]  # narrow columns: many fit beside each other
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=align)


def _number(metric: str, value: float) -> str:
    """Percentages with two digits; what is counted is whole."""
    return f"{value:.0f}" if metric == "n" or metric.startswith("n_") else f"{value:.2f}"


def format_report(results: Results, facts: dict[str, Any]) -> str:
    """The table, between what was evaluated and the rules that the numbers follow."""
    told = {**facts, "checkpoint": f"{facts['checkpoint']} ({facts['checkpoint_choice']})"}
    keys = ("images", "engine", "checkpoint", "iteration", "seed")
    known = ", ".join(f"{key} {told[key]}" for key in keys if key in told)
    files = facts["files"]
    source = next((files[role] for role in ("vocabulary", "classes", "json") if role in files), "the data set")
    words = f"{len(facts['vocabulary'])} classes of {source}"
    counts = ", ".join(f"{len(names)} {group}" for group, names in facts["classes"].items())
    rules = [f"{output} {name}: {rule}" for output, quoted in facts["rules"].items() for name, rule in quoted.items()]
    head = [f"{facts['dataset']} ({facts['truth']} truth): {known}", f"vocabulary: {words}{counts and f' ({counts})'}"]
    return "\n".join([*head, format_table(results), *rules])


def write_report(path: Path, results: Results, facts: dict[str, Any]) -> None:
    """Writes `{**facts, "results": results}` as JSON, whole or not at all; a metric that is not a number is null."""
    numbers = {
        task: {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        for task, metrics in results.items()
    }
    write_text(path, json.dumps({**facts, "results": numbers}, indent=1, ensure_ascii=False))
