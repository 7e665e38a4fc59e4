"""What a run has left behind: its metrics, and the settings it was made with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from detectron2_sam.methods import full_cfg
from sam_common.config import CfgNode
from sam_common.errors import UserError

Metrics = dict[str, float]
"""task/metric -> value"""
_NO_MATTER = {"OUTPUT_DIR", "MODEL.DEVICE", "DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD"}  # of the numbers
_NAMED_KEYS = 3  # in an error


def read_results(folder: Path) -> Metrics:
    """The metrics of a finished run, by task/metric, of the one data set it evaluated; empty where it has not finished.

    What is no number there is left out.

    Raises:
        UserError: the file is damaged, or there are several, of several data sets.
    """
    files = sorted(folder.glob("inference/*/results.json"))
    if not files:
        return {}
    if len(files) > 1:
        names = ", ".join(file.parent.name for file in files)
        raise UserError(f"{folder}/inference has results of several data sets, {names}: move the others elsewhere")
    try:
        report = json.loads(files[0].read_text(encoding="utf-8"))
        tasks = report["results"].items() if _is_of_the_end(folder, report) else ()
        return {f"{task}/{name}": v for task, metrics in tasks for name, v in metrics.items() if v is not None}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{files[0]} is damaged: delete it and give the same command again") from error


def _is_of_the_end(folder: Path, report: dict[str, Any]) -> bool:
    """Whether a report is none that `TEST.EVAL_PERIOD` made on the way."""
    config = folder / "config.yaml"  # of a training; a test has it elsewhere
    if report.get("checkpoint_choice") != "last" or not config.is_file():
        return True
    return bool(report["iteration"] + 1 >= yaml.safe_load(config.read_text(encoding="utf-8"))["SOLVER"]["MAX_ITER"])


def check_settings(folder: Path, config: str, options: Sequence[str]) -> None:
    """Lets no run be taken for one of other settings, as after an edit of its configuration file.

    Keys that only one of the two has, of a version with more of them, do not count; nor do the weights of a test,
    which are those of its training.

    Raises:
        UserError: what is in the folder was not run with `config` and `options`.
    """
    known = next((file for file in (folder / "config.yaml", folder / "inference/config.yaml") if file.is_file()), None)
    if known is None:
        return
    try:
        then = dict(_leaves(yaml.safe_load(known.read_text(encoding="utf-8"))))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{known} is damaged: delete its folder and give the same command again") from error
    now = dict(_leaves(yaml.safe_load(resolve(config, options).dump())))
    skipped = _NO_MATTER | ({"MODEL.WEIGHTS"} if known.parent != folder else set())
    other = [key for key in sorted(now.keys() & then.keys() - skipped) if now[key] != then[key]]
    if other:
        told = ", ".join(f"{key} {then[key]}, now {now[key]}" for key in other[:_NAMED_KEYS])
        more = f" and {len(other) - _NAMED_KEYS} more" if len(other) > _NAMED_KEYS else ""
        raise UserError(f"{folder} was run with other settings ({told}{more}): delete it, or give another --output")


def resolve(config: str, options: Sequence[str]) -> CfgNode:
    """A configuration file with overrides, KEY, VALUE, …"""
    cfg = full_cfg()
    cfg.merge_from_file(config)
    cfg.merge_from_list(list(options))
    return cfg


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """KEY -> value of what YAML nests."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
