"""Detectron2's evaluators and ours: the same predictions, the same numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, COCOPanopticEvaluator, SemSegEvaluator
from PIL import Image
from torch import Tensor

from detectron2_sam.plugin import stock_evaluation
from detectron2_sam.plugin.compat import has_panopticapi
from detectron2_sam.plugin.evaluation import SegmentationEvaluator, build_evaluator
from detectron2_sam.plugin.trainer import Trainer
from sam_common.data import catalog
from sam_common.data.coco_panoptic import coco_panoptic_spec, read_ground_truth
from sam_common.data.images import write_segment_ids
from sam_common.errors import UserError
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from tests.support.small_cfg import small_cfg

NAME = "generated_test_panoptic"
needs_panopticapi = pytest.mark.skipif(not has_panopticapi(), reason="panopticapi is not installed")


def compare(name: str, outputs: list[tuple[Tensor, list[dict[str, Any]]]], folder: Path) -> dict[str, float]:
    """Both evaluators' means on one list of predictions, asserted equal; ours."""
    spec = catalog.get(name)
    theirs, ours = COCOPanopticEvaluator(name), PanopticQualityEvaluator(spec, output_dir=folder / "ours")
    for evaluator in (theirs, ours):
        evaluator.reset()
        for record, output in zip(spec.load(), copy.deepcopy(outputs), strict=True):
            evaluator.process([record], [{"panoptic_seg": output}])
    expected, found = theirs.evaluate()["panoptic_seg"], ours.evaluate()["panoptic_seg"]
    # panopticapi's mean over no class at all is 0; ours leaves the group out.
    assert {key: found.get(key, 0.0) for key in expected} == pytest.approx(expected, abs=1e-9)
    return found


def random_prediction(record: dict[str, Any], generator: np.random.Generator, vocabulary: Any) -> Any:
    """The truth with some segments dropped, renamed, eroded or merged, and some void scattered over it."""
    labels = read_ground_truth(record)
    ids, segments = torch.zeros_like(labels, dtype=torch.int32), []
    for index, segment in enumerate(record["segments_info"]):
        fate = generator.random()
        if fate < 0.15:
            continue
        category = segment["category_id"] if fate < 0.8 else int(generator.integers(len(vocabulary)))
        mask = (labels == index + 1) & torch.from_numpy(generator.random(labels.shape) < generator.uniform(0.3, 1.0))
        if not mask.any():
            continue
        ids[mask] = index + 1
        segments.append({"id": index + 1, "category_id": category, "isthing": bool(vocabulary[category].is_thing)})
    return ids, segments


@needs_panopticapi
def test_panoptic_quality_equals_panopticapi_on_random_predictions(world: Path) -> None:
    """Five rounds of damaged truths over the drawn scenes: PQ, SQ, RQ of all, things and stuff agree to 1e-9."""
    spec = catalog.get(NAME)
    for seed in range(5):
        generator = np.random.default_rng(seed)
        outputs = [random_prediction(record, generator, spec.load_vocabulary()) for record in spec.load()]
        assert 0 < compare(NAME, outputs, world / str(seed))["PQ"] < 100


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[str]:
    """A hand-made set of two 8×8 images: void, a crowd and a stuff region; two things."""
    for folder in ("images", "panoptic"):
        (tmp_path / folder).mkdir()
    truth = torch.zeros(8, 8, dtype=torch.int32)
    truth[:4, :4], truth[:4, 4:], truth[4:, :6] = 1, 2, 3  # a thing, a crowd of that class, stuff; the rest is void
    other = torch.full((8, 8), 7, dtype=torch.int32)
    write_segment_ids(tmp_path / "panoptic" / "0.png", truth)
    write_segment_ids(tmp_path / "panoptic" / "1.png", other)
    info = [
        [
            {"id": 1, "category_id": 10, "iscrowd": 0, "area": 16},
            {"id": 2, "category_id": 10, "iscrowd": 1, "area": 16},
            {"id": 3, "category_id": 20, "iscrowd": 0, "area": 24},
        ],
        [{"id": 7, "category_id": 30, "iscrowd": 0, "area": 64}],
    ]
    for index in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{index}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 8} for i in range(2)],
        "annotations": [{"image_id": i, "file_name": f"{i}.png", "segments_info": info[i]} for i in range(2)],
        "categories": [
            {"id": 10, "name": "dog", "isthing": 1},
            {"id": 20, "name": "sky", "isthing": 0},
            {"id": 30, "name": "cat", "isthing": 1},
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    spec = coco_panoptic_spec(
        "crowded", json_file=tmp_path / "truth.json", images=tmp_path / "images", panoptic=tmp_path / "panoptic"
    )
    catalog.register(spec)
    from detectron2_sam.plugin.datasets import register_datasets

    register_datasets()
    yield "crowded"
    catalog._specs.pop("crowded")
    catalog._origin.pop("crowded")
    DatasetCatalog.remove("crowded")
    MetadataCatalog.remove("crowded")


def rows(*parts: tuple[slice, slice, int]) -> Tensor:
    ids = torch.zeros(8, 8, dtype=torch.int32)
    for ys, xs, number in parts:
        ids[ys, xs] = number
    return ids


ALL, TOP, LEFT, RIGHT = slice(None), slice(0, 4), slice(0, 4), slice(4, 8)


@needs_panopticapi
@pytest.mark.parametrize(
    "first",
    [
        pytest.param((rows(), []), id="nothing"),
        pytest.param((rows((TOP, LEFT, 1), (TOP, RIGHT, 2)), [(1, 0), (2, 0)]), id="one on the crowd"),
        pytest.param((rows((TOP, ALL, 1)), [(1, 0)]), id="half on the crowd"),
        pytest.param((rows((slice(4, 8), slice(5, 8), 1)), [(1, 1)]), id="mostly on void"),
        pytest.param((rows((TOP, slice(0, 2), 1)), [(1, 0)]), id="IoU exactly one half"),
        pytest.param((rows((slice(4, 8), ALL, 5), (TOP, ALL, 6)), [(5, 1), (6, 2)]), id="another class"),
    ],
)
def test_panoptic_quality_equals_panopticapi_on_hand_made_cases(first: Any, crowded: str, tmp_path: Path) -> None:
    """Void, crowd, an empty prediction, a tie at one half and an image that is one segment."""
    thing = (True, False, True)

    def output(ids: Tensor, segments: list[tuple[int, int]]) -> tuple[Tensor, list[dict[str, Any]]]:
        return ids, [{"id": i, "category_id": c, "isthing": thing[c]} for i, c in segments]

    compare(crowded, [output(*first), output(rows((ALL, ALL, 1)), [(1, 2)])], tmp_path)


def test_the_tables_are_ours_unless_detectron2s_are_asked_for(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is installed; without panopticapi Detectron2's evaluator is refused, in a line that offers both ways."""
    assert isinstance(build_evaluator(small_cfg(tmp_path), NAME, tmp_path), SegmentationEvaluator)
    theirs = small_cfg(tmp_path, TEST__EVALUATORS="detectron2")
    (judge,) = build_evaluator(theirs, NAME, tmp_path)._evaluators
    assert isinstance(judge, COCOPanopticEvaluator)
    monkeypatch.setattr(stock_evaluation, "has_panopticapi", lambda: False)
    with pytest.raises(UserError, match=r"pip install .*panopticapi.* auto"):
        build_evaluator(theirs, NAME, tmp_path)


@needs_panopticapi
def test_one_model_scores_the_same_by_both(world: Path, tmp_path: Path) -> None:
    """Through Detectron2's whole evaluation: loader, model, evaluator; the means of seen and unseen classes too."""
    results = []
    for choice in ("auto", "detectron2"):
        cfg = small_cfg(tmp_path / choice, TEST__EVALUATORS=choice)
        torch.manual_seed(0)
        model = Trainer.build_model(cfg)
        model.training_vocabulary = catalog.get(NAME).load_vocabulary()[:20]
        results.append(Trainer.test(cfg, model)["panoptic_seg"])
    ours, theirs = results
    assert {key: ours.get(key, 0.0) for key in theirs} == pytest.approx(theirs, abs=1e-9)
    assert "n_unseen" in theirs


def test_semantic_and_instance_data_sets_are_judged_by_detectron2(world: Path, tmp_path: Path) -> None:
    """The truth as the prediction of a label map scores mIoU 100; each evaluator is chosen by what is switched on."""
    spec, folder = catalog.get(NAME), tmp_path / "labels"
    folder.mkdir()
    records = []
    for record in spec.load():
        labels = read_ground_truth(record)
        classes = torch.tensor([255, *(segment["category_id"] for segment in record["segments_info"])])
        path = folder / f"{Path(record['file_name']).stem}.png"
        Image.fromarray(classes[labels].byte().numpy()).save(path)
        records.append({"file_name": record["file_name"], "sem_seg_file_name": str(path)})
    DatasetCatalog.register("tiny_sem_seg", lambda: records)
    names = [category.name for category in spec.load_vocabulary()]
    MetadataCatalog.get("tiny_sem_seg").set(stuff_classes=names, evaluator_type="sem_seg", ignore_label=255)
    try:
        theirs = {"TEST__EVALUATORS": "detectron2"}
        cfg = small_cfg(tmp_path / "run", MODEL__POSSAM__TEST__SEMANTIC_ON=True, **theirs)
        (evaluator,) = build_evaluator(cfg, "tiny_sem_seg", tmp_path / "out")._evaluators
        assert isinstance(evaluator, SemSegEvaluator)
        evaluator.reset()
        for item in Trainer.build_test_loader(cfg, "tiny_sem_seg"):
            record = next(record for record in records if record["file_name"] == item[0]["file_name"])
            truth = torch.from_numpy(np.array(Image.open(record["sem_seg_file_name"]))).long()
            evaluator.process(item, [{"sem_seg": torch.nn.functional.one_hot(truth, 256)[..., :56].permute(2, 0, 1)}])
        assert evaluator.evaluate()["sem_seg"]["mIoU"] == pytest.approx(100)
        with pytest.raises(UserError, match=r"tiny_sem_seg has truth for sem_seg but the model makes panoptic_seg"):
            build_evaluator(small_cfg(tmp_path / "run", **theirs), "tiny_sem_seg", tmp_path / "out")
    finally:
        DatasetCatalog.remove("tiny_sem_seg")
        MetadataCatalog.remove("tiny_sem_seg")


def test_instances_are_judged_by_the_coco_evaluator(tmp_path: Path) -> None:
    """Chosen for COCO's own instance data sets when instances are switched on."""
    MetadataCatalog.get("tiny_instances_only").set(
        thing_classes=["dog"],
        evaluator_type="coco",
        json_file=str(tmp_path / "truth.json"),
        thing_dataset_id_to_contiguous_id={1: 0},
    )
    (tmp_path / "truth.json").write_text(
        json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog"}]})
    )
    DatasetCatalog.register("tiny_instances_only", lambda: [])
    try:
        cfg = small_cfg(tmp_path / "run", MODEL__POSSAM__TEST__INSTANCE_ON=True, TEST__EVALUATORS="detectron2")
        (evaluator,) = build_evaluator(cfg, "tiny_instances_only", tmp_path)._evaluators
        assert isinstance(evaluator, COCOEvaluator)
    finally:
        DatasetCatalog.remove("tiny_instances_only")
        MetadataCatalog.remove("tiny_instances_only")
