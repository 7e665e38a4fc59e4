"""Panoptic quality against values derived by hand and an independent slow implementation.

Pictures are written as rows of segment numbers: 0 is void, k the k-th segment. Classes: 0 is `cat` (thing), 1 `sky`
(stuff), 2 `dog` (thing).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.images import read_segment_ids, write_segment_ids
from sam_common.evaluation.class_groups import class_groups
from sam_common.evaluation.panoptic_quality import (
    PanopticQualityEvaluator,
    joint_areas,
    match_segments,
    panoptic_quality,
    summarize,
)
from sam_common.io.native import KERNELS_VARIABLE
from sam_common.structures import Category

VOCABULARY = (
    Category("cat", ("cat",), True, 10),
    Category("sky", ("sky",), False, 20),
    Category("dog", ("dog", "puppy"), True, 30),
)
NOTHING = [0.0, 0, 0, 0]


def _counts(truth, true_classes, predicted, predicted_classes, crowd=()):
    truth, predicted = torch.tensor(truth), torch.tensor(predicted)
    areas = joint_areas(truth, predicted, len(true_classes), len(predicted_classes))
    is_crowd = torch.tensor([k + 1 in crowd for k in range(len(true_classes))], dtype=torch.bool)
    true_classes = torch.tensor(true_classes, dtype=torch.int64)
    predicted_classes = torch.tensor(predicted_classes, dtype=torch.int64)
    return match_segments(areas, true_classes, is_crowd, predicted_classes, 3).tolist()


CASES = {
    # 3 of 4 pixels shared, union 4: IoU 0.75
    "match": ([[1, 1, 1, 1]], [0], [[1, 1, 1, 0]], [0], (), [[0.75, 1, 0, 0], NOTHING, NOTHING]),
    # exactly 0.5 is no match: the truth is missed and the prediction false
    "tie at one half": ([[1, 1, 1, 1]], [0], [[1, 1, 0, 0]], [0], (), [[0.0, 0, 1, 1], NOTHING, NOTHING]),
    # 4 shared of 7: just above one half, IoU 4/7
    "just above one half": ([[1] * 7], [0], [[1] * 4 + [0] * 3], [0], (), [[4 / 7, 1, 0, 0], NOTHING, NOTHING]),
    "perfect mask, wrong class": ([[1, 1]], [0], [[1, 1]], [2], (), [[0.0, 0, 0, 1], NOTHING, [0.0, 0, 1, 0]]),
    # 2 of the prediction's 4 pixels are void in the truth and leave the union: IoU 2/2
    "void leaves the union": ([[1, 1, 0, 0]], [0], [[1, 1, 1, 1]], [0], (), [[1.0, 1, 0, 0], NOTHING, NOTHING]),
    # 2 of 3 pixels on void: ignored; the truth (1 of 2 found, IoU 1/2) is missed all the same
    "mostly void": ([[1, 1, 0, 0]], [0], [[0, 1, 1, 1]], [0], (), [[0.0, 0, 0, 1], NOTHING, NOTHING]),
    # half on void is not more than half: false
    "half void": ([[1, 1, 0, 0]], [0], [[0, 1, 1, 0]], [2], (), [[0.0, 0, 0, 1], NOTHING, [0.0, 0, 1, 0]]),
    "crowd is never missed": ([[1, 1, 1]], [0], [[0, 0, 0]], [], (1,), [NOTHING, NOTHING, NOTHING]),
    "crowd is never matched": ([[1, 1, 1]], [0], [[1, 1, 1]], [0], (1,), [NOTHING, NOTHING, NOTHING]),
    "crowd of another class": ([[1, 1, 1]], [0], [[1, 1, 1]], [2], (1,), [NOTHING, NOTHING, [0.0, 0, 1, 0]]),
    # 1 on void and 1 on the class's crowd of 3 pixels: together more than half
    "void and crowd add up": ([[0, 1, 2]], [0, 1], [[1, 1, 1]], [0], (1,), [NOTHING, [0.0, 0, 0, 1], NOTHING]),
    # of two crowds the last one counts, as in the reference: 1 of 4 pixels, so the prediction is false
    "last crowd counts": ([[1, 1, 1, 2]], [0, 0], [[1, 1, 1, 1]], [0], (1, 2), [[0.0, 0, 1, 0], NOTHING, NOTHING]),
    "nothing predicted": ([[1, 2]], [0, 1], [[0, 0]], [], (), [[0.0, 0, 0, 1], [0.0, 0, 0, 1], NOTHING]),
    # all of the picture is void: whatever is predicted is ignored
    "empty truth": ([[0, 0]], [], [[1, 1]], [0], (), [NOTHING, NOTHING, NOTHING]),
    "both empty": ([[0, 0]], [], [[0, 0]], [], (), [NOTHING, NOTHING, NOTHING]),
    "segment without pixels": ([[1, 1]], [0], [[1, 1]], [0, 2], (), [[1.0, 1, 0, 0], NOTHING, NOTHING]),
    "two of one class": ([[1, 1, 2, 2]], [0, 0], [[2, 2, 1, 1]], [0, 0], (), [[2.0, 2, 0, 0], NOTHING, NOTHING]),
}


@pytest.mark.parametrize(
    ("truth", "true_classes", "predicted", "classes", "crowd", "expected"), CASES.values(), ids=CASES
)
def test_counts_by_hand(truth, true_classes, predicted, classes, crowd, expected):
    """Derived by hand: IoU sum, TP, FP and FN of each class in one small picture."""
    assert _counts(truth, true_classes, predicted, classes, crowd) == expected


def _slow_counts(truth, true_classes, crowd, predicted, predicted_classes):
    """The definition, pair by pair of masks, in a form that shares nothing with the code under test."""
    counts = np.zeros((3, 4))
    matched_true, matched_predicted = set(), set()
    for g in np.unique(truth):
        for p in np.unique(predicted):
            if not g or not p or crowd[g - 1] or true_classes[g - 1] != predicted_classes[p - 1]:
                continue
            true_mask, predicted_mask = truth == g, (predicted == p) & (truth != 0)
            iou = (true_mask & predicted_mask).sum() / (true_mask | predicted_mask).sum()
            if iou > 0.5:
                matched_true.add(g)
                matched_predicted.add(p)
                counts[true_classes[g - 1]] += [iou, 1, 0, 0]
    for g in np.unique(truth):
        if g and g not in matched_true and not crowd[g - 1]:
            counts[true_classes[g - 1], 3] += 1
    for p in np.unique(predicted):
        if not p or p in matched_predicted:
            continue
        crowds = [g for g in np.unique(truth) if g and crowd[g - 1] and true_classes[g - 1] == predicted_classes[p - 1]]
        excused = np.isin(truth[predicted == p], [0, *crowds[-1:]])
        if excused.mean() <= 0.5:
            counts[predicted_classes[p - 1], 2] += 1
    return counts


def _random_case(seed):
    """Blocks of up to six segments with void between them; predictions that copy most of a relabelled truth."""
    random = np.random.default_rng(seed)
    truth = np.kron(random.integers(0, 7, (4, 5)), np.ones((3, 3), dtype=np.int64))
    truth = np.unique(truth, return_inverse=True)[1].reshape(truth.shape)
    predicted = np.where(random.random(truth.shape) < 0.25, random.integers(0, 7, truth.shape), truth * 3 % 7)
    true_classes = random.integers(0, 3, int(truth.max()))
    predicted_classes = random.integers(0, 3, 6)
    for label in range(1, int(truth.max()) + 1):
        if random.random() < 0.7:
            predicted_classes[label * 3 % 7 - 1] = true_classes[label - 1]
    return truth, true_classes, random.random(len(true_classes)) < 0.3, predicted, predicted_classes


def test_counts_equal_a_slow_implementation():
    """Equality with an independent implementation on 100 random maps that hold matched, false and missed segments."""
    total = torch.zeros(3, 4, dtype=torch.float64)
    for seed in range(100):
        truth, true_classes, crowd, predicted, predicted_classes = map(torch.from_numpy, _random_case(seed))
        areas = joint_areas(truth, predicted, len(true_classes), len(predicted_classes))
        counts = match_segments(areas, true_classes, crowd, predicted_classes, 3)
        torch.testing.assert_close(counts, torch.from_numpy(_slow_counts(*_random_case(seed))), msg=f"seed {seed}")
        total += counts
    assert (total > 30).all()


def test_quality_by_hand():
    """Derived by hand: IoUs 0.8 + 0.6, 2 TP, 1 FP, 1 FN: SQ 70, RQ 2/3, PQ 140/3; no match: zeros; absent: NaN."""
    quality = panoptic_quality(torch.tensor([[1.4, 2, 1, 1], [0, 0, 3, 0], [0, 0, 0, 0]], dtype=torch.float64))
    expected = torch.tensor([[140 / 3, 70, 200 / 3], [0, 0, 0], [torch.nan] * 3], dtype=torch.float64)
    torch.testing.assert_close(quality, expected, equal_nan=True)


def test_means_run_over_classes_that_occur():
    """Derived by hand: dog does not occur, so things are cat alone; `puppy` is a training word, so dog is seen."""
    counts = torch.tensor([[0.8, 1, 0, 0], [0.6, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.float64)
    groups = class_groups(VOCABULARY, (Category("cat", ("cat",)), Category("puppy", ("Puppy ",))))
    metrics = summarize(counts, VOCABULARY, groups)
    expected = {"PQ": 55, "SQ": 70, "RQ": 75, "n": 2, "PQ_th": 80, "n_th": 1, "PQ_st": 30, "PQ_seen": 80, "n_seen": 1}
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)
    assert metrics["PQ_unseen"] == pytest.approx(30) and metrics["PQ-sky"] == pytest.approx(30)
    assert "PQ-dog" not in metrics


def test_nothing_occurs():
    """Edge case: not one segment anywhere gives NaN for all and no other group."""
    metrics = summarize(torch.zeros(3, 4, dtype=torch.float64), VOCABULARY, class_groups(VOCABULARY, None))
    assert set(metrics) == {"PQ", "SQ", "RQ", "n"} and np.isnan(metrics["PQ"]) and metrics["n"] == 0


def _tiny_dataset(folder):
    """Two 2×4 images: cat and sky with a void column; a crowd of dogs over sky. No pictures: evaluation needs none."""
    ids = {1: [[7, 7, 300, 0], [7, 7, 300, 0]], 2: [[70000, 70000, 9, 9], [9, 9, 9, 9]]}
    segments = {
        1: [{"id": 7, "category_id": 10}, {"id": 300, "category_id": 20}],
        2: [{"id": 70000, "category_id": 30, "iscrowd": 1}, {"id": 9, "category_id": 20}],
    }
    (folder / "images" / "a").mkdir(parents=True)
    content = {
        "images": [{"id": i, "file_name": f"a/{i}.jpg", "height": 2, "width": 4} for i in ids],
        "annotations": [{"image_id": i, "file_name": f"a/{i}.png", "segments_info": segments[i]} for i in ids],
        "categories": [{"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in VOCABULARY],
    }
    for index, rows in ids.items():
        write_segment_ids(folder / "panoptic" / "a" / f"{index}.png", torch.tensor(rows))
        (folder / "images" / "a" / f"{index}.jpg").touch()
    (folder / "panoptic.json").write_text(json.dumps(content))
    return coco_panoptic_spec(
        "tiny", json_file=folder / "panoptic.json", images=folder / "images", panoptic=folder / "panoptic"
    )


def _predict(rows, classes):
    segments = [{"id": k + 1, "category_id": c, "isthing": True, "score": 1.0} for k, c in enumerate(classes)]
    return {"panoptic_seg": (torch.tensor(rows, dtype=torch.int32), segments)}


@pytest.mark.parametrize("kernels", ["", "pytorch"])
def test_evaluator_end_to_end(tmp_path, kernels, monkeypatch):
    """Derived by hand: cat IoU 1; sky IoU 1 and 6/8 in two images, a dog on the crowd is ignored. Files are official.

    Image 2 predicts sky everywhere: the crowd's pixels stay in the union, so IoU = 6/8. A second evaluation after
    `reset` gives the same: nothing is left over. The written result is itself a data set, with the original ids.
    """
    monkeypatch.setenv(KERNELS_VARIABLE, kernels)
    spec = _tiny_dataset(tmp_path)
    evaluator = PanopticQualityEvaluator(spec, output_dir=tmp_path / "out", training_vocabulary=VOCABULARY[:1])
    for _ in range(2):
        evaluator.reset()
        evaluator.process(
            [{"image_id": 1}, {"image_id": 2}],
            [
                _predict([[1, 1, 2, 2], [1, 1, 2, 2]], [0, 1]),
                _predict([[1, 1, 1, 1], [1, 1, 1, 1]], [1, 2]),
            ],
        )
        metrics = evaluator.evaluate()["panoptic_seg"]
    assert (
        metrics["PQ-cat"] == 100 and metrics["PQ-sky"] == pytest.approx(87.5) and metrics["PQ"] == pytest.approx(93.75)
    )
    assert metrics["PQ_seen"] == 100 and metrics["PQ_unseen"] == pytest.approx(87.5) and metrics["n"] == 2

    out = tmp_path / "out"
    written = coco_panoptic_spec(
        "out", json_file=out / "predictions.json", images=tmp_path / "images", panoptic=out / "predictions"
    )
    first, second = written.load()
    assert [s["id"] for s in first["segments_info"]] == [1, 2] and [s["area"] for s in second["segments_info"]] == [8]
    official = json.loads((out / "predictions.json").read_text())["annotations"]
    assert [[s["category_id"] for s in a["segments_info"]] for a in official] == [[10, 20], [20]]
    assert written.load_vocabulary() == (*VOCABULARY[:2], Category("dog", ("dog",), True, 30))
    quality = json.loads((out / "panoptic_quality.json").read_text())
    assert quality["classes"][1] | {"PQ": 87.5} == quality["classes"][1] and quality["classes"][1]["tp"] == 2


@pytest.mark.parametrize("kernels", ["", "pytorch"])
def test_evaluator_refuses_ids_that_no_segment_explains(tmp_path, kernels, monkeypatch):
    """Error: a model whose id map and segments disagree is a bug, and named as one."""
    monkeypatch.setenv(KERNELS_VARIABLE, kernels)
    evaluator = PanopticQualityEvaluator(_tiny_dataset(tmp_path), output_dir=tmp_path / "out")
    with pytest.raises(ValueError, match="ids without segments_info"):
        evaluator.process([{"image_id": 1}], [_predict([[1, 1, 2, 2], [1, 1, 2, 3]], [0, 1])])


def test_truth_against_itself_on_real_images(samples, tmp_path):
    """Invariant: predicting the annotation of the two real COCO images, crowds included, is PQ 100 for all groups."""
    folder = samples / "coco_panoptic"
    spec = coco_panoptic_spec(
        "real", json_file=folder / "panoptic.json", images=folder / "images", panoptic=folder / "panoptic"
    )
    evaluator = PanopticQualityEvaluator(spec, output_dir=tmp_path, training_vocabulary=spec.load_vocabulary()[:80])
    for record in spec.load():
        ids = read_segment_ids(record["pan_seg_file_name"])
        evaluator.process([record], [{"panoptic_seg": (ids, record["segments_info"])}])
    metrics = evaluator.evaluate()["panoptic_seg"]
    assert {metrics[f"{m}{g}"] for m in ("PQ", "SQ", "RQ") for g in ("", "_th", "_st", "_seen", "_unseen")} == {100.0}
