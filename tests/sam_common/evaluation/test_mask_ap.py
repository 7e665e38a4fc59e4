"""Average precision: cases derived by hand, and equality with COCO's tools used their own way on the files we write."""

from __future__ import annotations

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sam_common.evaluation import mask_ap
from sam_common.evaluation.mask_ap import MaskAPEvaluator, average_precision
from sam_common.masks.rle import encode_mask
from sam_common.structures import Category
from tests.support.worlds import (
    VOCABULARY,
    instance_world,
    panoptic_world,
    predict_instances,
    rectangle,
)

SIZE = (10, 10)
ALL = slice(None)
LEFT, RIGHT = rectangle(ALL, slice(0, 4)), rectangle(ALL, slice(6, 10))
ONE_OF_TWO = 100 * 51 / 101  # precision 1 at the recalls 0.00, 0.01 … 0.50 of the 101 there are, then 0

CASES = {
    "both found": ([(0, LEFT, False), (0, RIGHT, False)], [(0, LEFT, 0.9), (0, RIGHT, 0.8)], (100, 100, 100)),
    "one of two": ([(0, LEFT, False), (0, RIGHT, False)], [(0, LEFT, 0.9)], (ONE_OF_TWO,) * 3),
    "another class": ([(0, LEFT, False)], [(2, LEFT, 0.9)], (0, 0, 0)),
    "nothing found": ([(0, LEFT, False)], [], (0, 0, 0)),
    # 6 of 10 rows: IoU 0.6 passes 0.50, 0.55 and 0.60 of the ten thresholds
    "IoU 0.6": ([(0, LEFT, False)], [(0, rectangle(slice(0, 6), slice(0, 4)), 0.9)], (30, 100, 0)),
    # the better one is false: precision 1/2 at every recall
    "a false one first": ([(0, LEFT, False)], [(0, RIGHT, 0.9), (0, LEFT, 0.8)], (50, 50, 50)),
    # the same, but it lies on a crowd, so it is not counted
    "one on a crowd": ([(0, LEFT, False), (0, RIGHT, True)], [(0, RIGHT, 0.9), (0, LEFT, 0.8)], (100, 100, 100)),
    "a second one is false": ([(0, LEFT, False)], [(0, LEFT, 0.8), (0, LEFT, 0.9)], (100, 100, 100)),
    "only a crowd": ([(0, LEFT, True)], [(0, LEFT, 0.9)], (math.nan,) * 3),
    # stuff has no instances: as if it had not been predicted
    "stuff is skipped": ([(0, LEFT, False)], [(1, LEFT, 0.9), (0, LEFT, 0.8)], (100, 100, 100)),
    "a mask without pixels": ([(0, LEFT, False)], [(0, LEFT, 0.9), (0, LEFT & RIGHT, 0.8)], (100, 100, 100)),
}


@pytest.mark.parametrize(("truth", "found", "expected"), CASES.values(), ids=CASES)
def test_masks_and_boxes_by_hand(truth, found, expected, tmp_path):
    """Derived by hand: AP, AP50 and AP75. The masks are rectangles, so boxes score the same."""
    evaluator = MaskAPEvaluator(instance_world([truth]), output_dir=tmp_path)
    evaluator.process([{"image_id": 0}], [predict_instances(found, SIZE)])
    results = evaluator.evaluate()
    for task in ("segm", "bbox"):
        assert [results[task][name] for name in ("AP", "AP50", "AP75")] == pytest.approx(expected, nan_ok=True), task


def test_masks_and_boxes_differ():
    """Derived by hand: a staircase over 47 % of a square has the square's box: box AP 100, mask AP 0."""
    square = rectangle(ALL, ALL)
    stairs = torch.ones(SIZE).tril(-1).bool()
    stairs[0, 0] = stairs[9, 9] = True  # 47 of 100 pixels, and the whole box
    truth = {"images": [{"id": "a", "height": 10, "width": 10}], "categories": [{"id": 7, "name": "cat"}]}
    shared = {"image_id": "a", "category_id": 7, "bbox": [0, 0, 10, 10]}
    truth["annotations"] = [{**shared, "iscrowd": 0, "area": 100, "segmentation": encode_mask(square)}]
    found = [{**shared, "score": 1.0, "segmentation": encode_mask(stairs)}]
    assert average_precision(truth, found, "bbox")["AP"] == pytest.approx(100)
    assert average_precision(truth, found, "segm")["AP"] == 0


def _random_world(tmp_path, number=12):
    """Images of 128² with rectangles of all of COCO's sizes, crowds among them, and predictions that nearly fit."""
    random = np.random.default_rng(3)
    truth, outputs = [], []
    for _ in range(number):
        instances, found = [], []
        for _ in range(6):
            (y, x), (h, w) = random.integers(0, 90, 2), random.integers(3, 128, 2)
            index = int(random.choice([0, 2]))
            instances.append((index, rectangle(slice(y, y + h), slice(x, x + w), (128, 128)), random.random() < 0.15))
            for _ in range(2):
                dy, dx, dh, dw = random.integers(-5, 6, 4)
                rows, columns = (slice(max(0, y + dy), y + h + dh), slice(max(0, x + dx), x + w + dw))
                guess = index if random.random() < 0.8 else 2 - index
                found.append((guess, rectangle(rows, columns, (128, 128)), float(random.random())))
        truth.append(instances)
        outputs.append(predict_instances(found, (128, 128)))
    spec = instance_world(truth, size=(128, 128))
    evaluator = MaskAPEvaluator(spec, output_dir=tmp_path, training_vocabulary=VOCABULARY[:1])
    evaluator.process(spec.load(), outputs)
    return evaluator.evaluate()


def test_the_files_say_what_is_reported(tmp_path):
    """Equality: pycocotools, used as its manual says on the two files that are written, gives the numbers reported."""
    results = _random_world(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "coco_instances_truth.json")
        entries = json.loads((tmp_path / "coco_instances_results.json").read_text())
        for task in ("segm", "bbox"):
            own = [{k: v for k, v in e.items() if k != "bbox" or task == "bbox"} for e in entries]
            official = COCOeval(truth, truth.loadRes(own), task)
            official.evaluate()
            official.accumulate()
            official.summarize()
            names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
            assert [results[task][name] for name in names] == pytest.approx(100 * official.stats[:6], abs=1e-9)
            assert 0 < results[task]["APs"] < results[task]["AP50"] < 100
    assert isinstance(entries[0]["segmentation"]["counts"], str) and {e["category_id"] for e in entries} == {10, 30}


def test_means_are_of_classes(tmp_path):
    """Invariant: AP is the mean of the classes' AP; cat is seen and dog is not, so theirs are those of the groups."""
    metrics = _random_world(tmp_path)["segm"]
    assert metrics["AP"] == pytest.approx((metrics["AP-cat"] + metrics["AP-dog"]) / 2)
    assert metrics["AP_seen"] == metrics["AP-cat"] and metrics["AP_unseen"] == metrics["AP-dog"]
    assert (metrics["n"], metrics["n_seen"], metrics["n_unseen"]) == (2, 1, 1)


def test_both_libraries_agree(tmp_path, monkeypatch):
    """Equality, where faster-coco-eval is installed: it is chosen, named, and gives pycocotools' numbers."""
    pytest.importorskip("faster_coco_eval")
    assert mask_ap.coco_library()[0].startswith("faster-coco-eval ")
    faster = _random_world(tmp_path / "faster")
    monkeypatch.setattr(mask_ap.importlib.util, "find_spec", lambda name: None)
    assert mask_ap.coco_library()[0].startswith("pycocotools ")
    for task, expected in _random_world(tmp_path / "official").items():
        assert faster[task] == pytest.approx(expected, abs=1e-9)


def test_panoptic_truth(tmp_path):
    """A panoptic annotation's things are instances, a crowd is a crowd, stuff is none: predicting them is AP 100."""
    rows = [[1, 1, 2, 2], [1, 1, 3, 3]]
    segments = [
        {"id": 1, "category_id": 10},
        {"id": 2, "category_id": 10, "iscrowd": 1},
        {"id": 3, "category_id": 20},
    ]
    spec = panoptic_world(tmp_path, {1: rows}, {1: segments})
    evaluator = MaskAPEvaluator(spec, output_dir=tmp_path / "out")
    masks = torch.tensor(rows)
    found = [(0, masks == 2, 0.9), (0, masks == 1, 0.8), (1, masks == 3, 0.7)]
    evaluator.process([{"image_id": 1}], [predict_instances(found, (2, 4))])
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100)
    truth = json.loads((tmp_path / "out" / "coco_instances_truth.json").read_text())
    assert [(a["iscrowd"], a["area"], a["bbox"]) for a in truth["annotations"]] == [
        *((0, 4, [0, 0, 2, 2]), (1, 2, [2, 0, 2, 1]))
    ]
    assert [category["name"] for category in truth["categories"]] == ["cat", "dog"]


@pytest.mark.parametrize("found", [[], [(0, LEFT, 0.9)]], ids=["nothing", "something"])
def test_a_data_set_without_things(found, tmp_path):
    """Edge case: where all classes are stuff there is nothing to find, whatever is predicted: no number, no failure."""
    stuff = tuple(Category(c.name, c.synonyms, False, c.id) for c in VOCABULARY)
    evaluator = MaskAPEvaluator(instance_world([[]], stuff), output_dir=tmp_path)
    evaluator.process([{"image_id": 0}], [predict_instances(found, SIZE)])
    for metrics in evaluator.evaluate().values():
        assert math.isnan(metrics["AP"]) and metrics["n"] == 0


def test_instances_of_another_size_are_a_bug(tmp_path):
    """Error: masks of another size would match nothing; they are named instead."""
    evaluator = MaskAPEvaluator(instance_world([[(0, LEFT, False)]]), output_dir=tmp_path)
    with pytest.raises(ValueError, match="instances of 0.jpg"):
        evaluator.process([{"image_id": 0}], [predict_instances([], (5, 5))])
