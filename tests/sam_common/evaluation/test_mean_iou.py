"""Both rules of mIoU against values derived by hand and the definitions over a full confusion matrix.

Classes: 0 is `cat`, 1 `sky`, 2 `dog`; -1 is ignored.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from pycocotools import mask as codec

from sam_common.evaluation.class_groups import class_groups
from sam_common.evaluation.mean_iou import MeanIoUEvaluator, best_class, means, pixel_counts, summarize
from sam_common.io.native import KERNELS_VARIABLE
from tests.support.worlds import VOCABULARY, panoptic_world, predict_semantic, semantic_world

METRICS = ("mIoU", "mIoU_union", "fwIoU", "mACC", "pACC")
NAN = math.nan
CASES = {
    # cat 2 of 2 found and nothing else called cat; sky 2 of 2
    "perfect": ([[0, 0, 1, 1]], [[0, 0, 1, 1]], (100, 100, 100, 100, 100)),
    # cat: 1 shared, union 2 + 1 - 1 = 2; sky: 2 shared, union 2 + 3 - 2 = 3. Mean of 1/2 and 2/3, by pixels the same
    "one pixel wrong": ([[0, 0, 1, 1]], [[0, 1, 1, 1]], (700 / 12, 700 / 12, 700 / 12, 75, 75)),
    # dog is predicted and never there: IoUs 1/2, 1 over two classes now, 1/2, 1, 0 over three before 2022
    "a class that is not there": ([[0, 0, 1, 1]], [[0, 2, 1, 1]], (75, 50, 75, 75, 75)),
    # what is predicted where the truth says nothing counts nowhere: dog is in no union
    "ignored pixels": ([[0, 0, -1, -1]], [[0, 0, 2, 1]], (100, 100, 100, 100, 100)),
    # cat has 3 pixels, one found (union 3); sky 1, found (union 1 + 2 + 1 - 1 = 3): fwIoU 3/4 · 1/3 + 1/4 · 1/3
    "frequencies": ([[0, 0, 0, 1]], [[0, 1, 1, 1]], (100 / 3, 100 / 3, 100 / 3, 200 / 3, 50)),
    "all wrong": ([[0, 0]], [[2, 2]], (0, 0, 0, 0, 0)),
    "no truth": ([[-1, -1]], [[0, 1]], (NAN, NAN, NAN, NAN, NAN)),
}


@pytest.mark.parametrize(("truth", "predicted", "expected"), CASES.values(), ids=CASES)
def test_metrics_by_hand(truth, predicted, expected):
    """Derived by hand: mIoU, mIoU_union, fwIoU, mACC and pACC of one small picture."""
    counts = pixel_counts(torch.tensor(truth), torch.tensor(predicted), 3)
    assert means(counts) == pytest.approx(dict(zip(METRICS, expected, strict=True)), nan_ok=True)


def _definitions(truth, predicted, num_classes):
    """The metrics from a confusion matrix [truth, predicted], class by class, in a form that shares no code."""
    matrix = np.zeros((num_classes, num_classes))
    for true, found in zip(truth.flatten(), predicted.flatten(), strict=True):
        if true >= 0:
            matrix[true, found] += 1
    in_truth = [c for c in range(num_classes) if matrix[c].sum()]
    in_union = [c for c in range(num_classes) if matrix[c].sum() + matrix[:, c].sum()]
    iou = {c: matrix[c, c] / (matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]) for c in in_union}
    return {
        "mIoU": np.mean([iou[c] for c in in_truth]),
        "mIoU_union": sum(iou[c] for c in in_truth) / len(in_union),
        "fwIoU": sum(iou[c] * matrix[c].sum() for c in in_truth) / matrix.sum(),
        "mACC": np.mean([matrix[c, c] / matrix[c].sum() for c in in_truth]),
        "pACC": np.trace(matrix) / matrix.sum(),
    }


def test_metrics_equal_the_definitions_on_random_maps():
    """Equality with the definitions on 20 random maps with ignored pixels and classes in one of both only."""
    different = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        truth, predicted = random.integers(-1, 9, (11, 13)), random.integers(3, 12, (11, 13))
        predicted = np.where((random.random(truth.shape) < 0.6) & (truth >= 0), truth, predicted)
        counts = pixel_counts(torch.from_numpy(truth), torch.from_numpy(predicted), 12)
        expected = _definitions(truth, predicted, 12)
        in_percent = {name: 100 * value for name, value in expected.items()}
        assert means(counts) == pytest.approx(in_percent, abs=1e-10)
        different += expected["mIoU"] != expected["mIoU_union"]
    assert different == 20


@pytest.mark.parametrize("kernels", ["", "pytorch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_best_class_is_argmax(dtype, kernels, monkeypatch):
    """Equality with argmax over several blocks: ties (the first wins), NaN (wins), infinities, strides."""
    monkeypatch.setattr("sam_common.evaluation.mean_iou._BLOCK", 8)
    monkeypatch.setenv(KERNELS_VARIABLE, kernels)
    scores = torch.randint(-3, 4, (9, 5, 7)).to(dtype)  # few values, so nearly every pixel has a tie
    scores[4, 1], scores[7, 1, 3], scores[0, 2, 2], scores[:, 3, 3] = torch.nan, torch.nan, torch.inf, -torch.inf
    assert torch.equal(best_class(scores), scores.argmax(dim=0))
    assert torch.equal(best_class(scores.transpose(1, 2)), scores.transpose(1, 2).argmax(dim=0))
    assert best_class(scores[:, :0]).shape == (0, 7)


def test_best_class_of_many():
    """Equality: more classes than a byte counts, and one alone."""
    scores = torch.randn(847, 11, 13)
    assert torch.equal(best_class(scores), scores.argmax(dim=0))
    assert not best_class(scores[:1]).any()


def test_groups_and_classes():
    """Derived by hand: cat, IoU 1/2, is seen, sky, 1, is not; dog, only predicted, weighs on the older mean alone."""
    counts = pixel_counts(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 2, 1, 1]]), 3)
    metrics = summarize(counts, VOCABULARY, class_groups(VOCABULARY, VOCABULARY[:1]))
    assert metrics["mIoU_seen"] == 50 and metrics["mIoU_unseen"] == 100 and metrics["mIoU_union_unseen"] == 50
    assert (metrics["n"], metrics["n_seen"], metrics["n_unseen"]) == (2, 1, 1)
    assert metrics["IoU-cat"] == 50 and metrics["ACC-cat"] == 50 and metrics["IoU-sky"] == 100
    assert "IoU-dog" not in metrics
    assert "mIoU_seen" not in summarize(counts, VOCABULARY, class_groups(VOCABULARY, None))


def test_label_maps_end_to_end(tmp_path):
    """Derived by hand over two images; the file is Detectron2's: decoded, it is the prediction. Twice the same.

    Image 0: cat 1 of 2, the ignored pixel is out; image 1: sky 2 of 2. cat IoU 1/2 (1 / (2 + 1 - 1)), sky 2/3.
    """
    maps = [torch.tensor([[0, 0, 255]]), torch.tensor([[1, 1, 255]])]
    predicted = [torch.tensor([[0, 1, 2]]), torch.tensor([[1, 1, 2]])]
    evaluator = MeanIoUEvaluator(semantic_world(tmp_path, maps), output_dir=tmp_path / "out")
    for _ in range(2):
        evaluator.reset()
        for number, rows in enumerate(predicted):
            evaluator.process([{"image_id": str(number)}], [predict_semantic(rows)])
        metrics = evaluator.evaluate()["sem_seg"]
    assert metrics["IoU-cat"] == 50 and metrics["IoU-sky"] == pytest.approx(200 / 3) and metrics["pACC"] == 75

    entries = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    assert [(entry["file_name"], entry["category_id"]) for entry in entries] == [
        *(("0.jpg", 10), ("0.jpg", 20), ("0.jpg", 30), ("1.jpg", 20), ("1.jpg", 30))
    ]
    index_of = {category.id: index for index, category in enumerate(VOCABULARY)}
    for number, rows in enumerate(predicted):
        own = [entry for entry in entries if entry["image_id"] == str(number)]
        decoded = sum(codec.decode(entry["segmentation"]).astype(int) * index_of[entry["category_id"]] for entry in own)
        assert decoded.tolist() == rows.tolist()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sem_seg_predictions.json"]


def test_panoptic_truth(tmp_path):
    """A panoptic annotation as label map: segments of one class are one region, crowd counts, void does not."""
    spec = panoptic_world(
        tmp_path,
        {1: [[1, 2, 3, 0]]},
        {1: [{"id": 1, "category_id": 10}, {"id": 2, "category_id": 10, "iscrowd": 1}, {"id": 3, "category_id": 20}]},
    )
    evaluator = MeanIoUEvaluator(spec, output_dir=tmp_path / "out")
    evaluator.process([{"image_id": 1}], [predict_semantic([[0, 0, 1, 2]])])
    metrics = evaluator.evaluate()["sem_seg"]
    assert metrics["mIoU"] == metrics["mIoU_union"] == metrics["pACC"] == 100 and metrics["n"] == 2


def test_labels_stand_for_scores(tmp_path):
    """Equality: a model may make the best class of each pixel alone, which needs no memory per class."""
    evaluator = MeanIoUEvaluator(semantic_world(tmp_path, [torch.tensor([[0, 0, 1, 1]])]), output_dir=tmp_path)
    evaluator.process([{"image_id": "0"}], [{"sem_seg_labels": torch.tensor([[0, 2, 1, 1]], dtype=torch.int32)}])
    metrics = evaluator.evaluate()["sem_seg"]
    assert (metrics["mIoU"], metrics["mIoU_union"]) == (75, 50)


def test_a_prediction_of_another_size_is_a_bug(tmp_path):
    """Error: scores at the size of the network's input are named, not resized in silence."""
    evaluator = MeanIoUEvaluator(semantic_world(tmp_path, [torch.zeros(2, 3)]), output_dir=tmp_path)
    with pytest.raises(ValueError, match=r"prediction of 0.jpg is \(1, 3\), not \(2, 3\)"):
        evaluator.process([{"image_id": "0"}], [predict_semantic([[0, 1, 2]])])
