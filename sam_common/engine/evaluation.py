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
from torch import nn
from tqdm import tqdm

from sam_common.evaluation.evaluator import Evaluator, Results, gather, is_main_process
from sam_common.files import write_text

logger = logging.getLogger(__name__)


def evaluate(
    model: nn.Module,
    loader: Iterable[list[dict[str, Any]]],
    evaluator: Evaluator,
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
    evaluator.reset()
    # Not inference_mode: what a model caches here (text embeddings) must still serve in training.
    with torch.no_grad(), autocast:
        for batch in tqdm(loader, desc=name, leave=False, disable=None if is_main_process() else True):
            if stopped():
                break
            evaluator.process(batch, model(batch))
    model.train(training)
    return None if any(gather(stopped())) else evaluator.evaluate()


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


def write_report(path: Path, results: Results, facts: dict[str, Any]) -> None:
    """Writes `{**facts, "results": results}` as JSON, whole or not at all; a metric that is not a number is null."""
    numbers = {
        task: {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        for task, metrics in results.items()
    }
    write_text(path, json.dumps({**facts, "results": numbers}, indent=1, ensure_ascii=False))
