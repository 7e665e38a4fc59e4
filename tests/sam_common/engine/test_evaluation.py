"""The evaluation loop and its report."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import torch

from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine.evaluation import (
    copypaste,
    dataset_facts,
    evaluate,
    flatten,
    format_report,
    format_table,
    write_report,
)
from tests.support.standin import VOCABULARY, MeanEvaluator, StandIn

BATCHES = [[{"image": torch.full((4,), float(i)), "vocabulary": VOCABULARY}] for i in range(5)]
RESULTS = {"task": {"PQ": 12.34567, "PQ-dog": 1.0, "SQ": float("nan")}}


def evaluator() -> MeanEvaluator:
    return MeanEvaluator(None, output_dir="", training_vocabulary=None)  # type: ignore[arg-type]


def test_evaluation_leaves_the_model_in_its_mode_and_keeps_no_gradient() -> None:
    """Eval inside, training again after, and an evaluator used twice starts anew."""
    model, judge = StandIn(), evaluator()
    modes: list[tuple[bool, bool]] = []
    model.register_forward_pre_hook(lambda module, _: modes.append((module.training, torch.is_grad_enabled())))
    for _ in range(2):
        results = evaluate(model, BATCHES, judge, name="x", autocast=contextlib.nullcontext(), stopped=lambda: False)
    assert results is not None and results["regression"]["n"] == 5
    assert set(modes) == {(False, False)} and model.training


def test_a_stopped_evaluation_has_no_result() -> None:
    """Half of the images are not the data set: the evaluator forgets them. The mode comes back all the same."""
    answers = iter([False, False, True, True])
    model, judge = StandIn(), evaluator()
    outcome = evaluate(
        model, BATCHES, judge, name="x", autocast=contextlib.nullcontext(), stopped=lambda: next(answers)
    )
    assert outcome is None and model.training and judge.values == []


def test_copypaste_has_three_lines_per_task_and_no_single_classes() -> None:
    """Detectron2's format."""
    assert copypaste(RESULTS) == ["copypaste: Task: task", "copypaste: PQ,SQ", "copypaste: 12.3457,nan"]


def test_flatten_names_the_data_set_only_among_several() -> None:
    """Detectron2's rule; what is no number is left out."""
    assert flatten({"a": RESULTS}) == {"task/PQ": 12.34567}
    assert flatten({"a": RESULTS, "b": RESULTS}) == {"a/task/PQ": 12.34567, "b/task/PQ": 12.34567}


def test_the_report_is_standard_json(tmp_path: Path) -> None:
    """NaN is not JSON: null. Facts come first."""
    write_report(tmp_path / "new" / "results.json", RESULTS, {"dataset": "a"})
    text = (tmp_path / "new" / "results.json").read_text()
    assert json.loads(text, parse_constant=lambda name: 1 / 0)["results"]["task"]["SQ"] is None
    assert list(json.loads(text)) == ["dataset", "results"]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_one_table_of_all_tasks() -> None:
    """Derived by hand: metrics are rows, groups of classes columns; suffixes tell them apart, classes have no row."""
    results = {
        "panoptic_seg": {
            "PQ": 50.0,
            "n": 3.0,
            "PQ_th": 60.0,
            "n_th": 2.0,
            "PQ_unseen": 40.0,
            "n_unseen": 1.0,
            "PQ-a": 1,
        },
        "sem_seg": {"mIoU": 12.345, "mIoU_union": float("nan"), "mIoU_union_seen": 7.0},
    }
    assert [cells(line) for line in format_table(results).splitlines() if "---" not in line] == [
        ["task", "metric", "all", "things", "seen", "unseen"],
        ["panoptic_seg", "PQ", "50.00", "60.00", "", "40.00"],
        ["panoptic_seg", "classes", "3", "2", "", "1"],
        ["sem_seg", "mIoU", "12.35", "", "", ""],
        ["sem_seg", "mIoU_union", "nan", "", "7.00", ""],
    ]


def test_a_row_for_each_task_where_nothing_is_about_groups() -> None:
    """Both readings of a metric stand side by side; what is counted is whole, what a task lacks is left blank."""
    means = {"mIoU_occ_strict": 35.126, "mIoU_occ_compat": float("nan"), "n": 800.0}
    table = format_table({"amodal": means | {"AP": 50.0, "AP-dog": 1.0}, "amodal_merged": means | {"n_missed": 7.0}})
    assert [line.split() for line in table.splitlines() if "--" not in line] == [
        ["task", "mIoU", "mIoU", "n", "AP", "n"],
        ["occ", "occ", "missed"],
        ["strict", "compat"],
        ["amodal", "35.13", "nan", "800", "50.00"],
        ["amodal_merged", "35.13", "nan", "800", "7"],
    ]


def test_the_report_says_what_its_numbers_are() -> None:
    """Data set, images, engine, checkpoint and its choice, seed, vocabulary and its file, seen classes, rules."""
    spec = DatasetSpec("a", list, lambda: VOCABULARY, truth="semantic", files={"classes": "words.txt"})
    facts = dataset_facts(spec, VOCABULARY[1:])
    assert facts["classes"] == {"seen": ["sky"], "unseen": ["dog"]} and facts["vocabulary"] == ["dog", "sky"]
    facts |= {"images": 5, "engine": "fabric", "checkpoint": "m.pth", "checkpoint_choice": "last", "seed": 3}
    text = format_report(RESULTS, {**facts, "rules": {"task": {"library": "tool 1.0", "mIoU": "of some"}, "other": {}}})
    first, second, *table, library, rule = text.splitlines()
    assert first == "a (semantic truth): images 5, engine fabric, checkpoint m.pth (last), seed 3"
    assert second == "vocabulary: 2 classes of words.txt (1 seen, 1 unseen)"
    assert (library, rule) == ("task library: tool 1.0", "task mIoU: of some")
    assert "\n".join(table) == format_table(RESULTS)
