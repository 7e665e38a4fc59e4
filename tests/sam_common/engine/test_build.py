"""What the engine makes of a configuration: values that no part could work with are told by their key."""

from __future__ import annotations

import pytest
from torch import nn

from detectron2_sam.commands.train.build import check_evaluation
from detectron2_sam.methods import full_cfg
from sam_common.config import get_cfg
from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine.build import build_lr_factor, build_optimizer
from sam_common.engine.build_data import training_set
from sam_common.engine.optimizer import cosine_factor
from sam_common.errors import UserError
from sam_common.method import methods
from sam_common.structures import Category
from tests.support.standin import StandIn, installed


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.FORMAT", "BGR", "INPUT.FORMAT is 'BGR'; choose one of RGB"),
        ("INPUT.IMAGE_SIZE", "0", "INPUT.IMAGE_SIZE is 0; give at least 1 pixel"),
        ("INPUT.MAX_SIZE_TEST", "-1", "INPUT.MAX_SIZE_TEST is -1"),
        ("INPUT.RANDOM_FLIP", "both", "choose one of horizontal, none"),
    ],
)
def test_inputs_that_cannot_be_made(key: str, value: str, message: str) -> None:
    """Detectron2's default BGR is refused, not ignored: the pixel statistics here are RGB."""
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        training_set(cfg, [DatasetSpec("streets", list, tuple)])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "INPUT.BOXES.JITTER_TRAIN",
            "0.5",
            "JITTER_TRAIN is 0.5; give a fraction of a box's side, from 0",
        ),
        ("INPUT.BOXES.JITTER_TEST", "-0.1", "JITTER_TEST is -0.1"),
        ("INPUT.BOXES.MATCH_IOU", "0.0", "MATCH_IOU is 0.0; give more than 0"),
    ],
)
def test_boxes_that_cannot_be_made(key: str, value: str, message: str) -> None:
    """Edges that move past each other, and boxes that would match what they do not touch, are told by their key."""
    cfg = full_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        training_set(cfg, [amodal("cars", 1)])


def test_an_evaluation_that_cannot_be_is_told_before_the_training() -> None:
    """The kinds of truth have evaluators; one that serves nothing, or a kind nobody knows, is one line."""
    assert [*(kind for method in methods() for kind in method.truths)] == [
        *("panoptic", "instance", "semantic"),
        *("amodal", "masks"),
    ]
    with installed():
        for kind in ("semantic", "depth"):
            catalog.register(DatasetSpec(kind, list, tuple, truth=kind))
        cfg, model = get_cfg(), StandIn()
        cfg.DATASETS.TEST = ("standin",)
        check_evaluation(cfg, model)
        for name, message in (
            ("semantic", "data set semantic has truth for sem_seg but the model makes value: switch"),
            ("depth", "the truth of depth is 'depth'; choose one of panoptic, instance, semantic"),
        ):
            cfg.DATASETS.TEST = (name,)
            with pytest.raises(UserError, match=message):
                check_evaluation(cfg, model)


def amodal(name: str, *counts: int) -> DatasetSpec:
    """Images with so many objects; the classes differ from data set to data set."""
    records = [{"image_id": i, "annotations": [{"id": a} for a in range(n)]} for i, n in enumerate(counts)]
    return DatasetSpec(name, lambda: records, lambda: (Category(name, (name,)),), truth="amodal")


def test_amodal_data_sets_are_trained_in_groups(caplog: pytest.LogCaptureFixture) -> None:
    """9 objects in groups of at most 4 are three, 5 are two; images without objects are none; classes do not matter."""
    cfg = full_cfg()
    cfg.merge_from_list(["INPUT.INSTANCES_PER_IMAGE", "4", "SOLVER.MAX_ITER", "10", "SOLVER.IMS_PER_BATCH", "2"])
    with caplog.at_level("INFO"):
        records, mapper = training_set(cfg, [amodal("cars", 9, 0), amodal("vans", 5)])
    assert sorted(len(record["annotations"]) for record in records) == [2, 3, 3, 3, 3]
    assert mapper.training and "14 objects in 5 groups: 10 iterations of 2 groups are 4.0 epochs" in caplog.text
    cfg.INPUT.INSTANCES_PER_IMAGE = 0
    with pytest.raises(UserError, match="INPUT.INSTANCES_PER_IMAGE is 0; give at least 1"):
        training_set(cfg, [amodal("cars", 1)])


def test_amodal_and_other_truth_are_not_trained_together() -> None:
    """One line that names the data set."""
    other = DatasetSpec("streets", list, tuple)
    with pytest.raises(UserError, match="DATASETS.TRAIN: streets has panoptic truth, cars amodal; choose one kind"):
        training_set(full_cfg(), [other, amodal("cars", 1)])


def test_the_polynomial_schedule_is_configured() -> None:
    """By hand, power 2 over 40 iterations: (1 - 20/40)² halfway, 0 at the end; halfway up at half the warm-up."""
    cfg = get_cfg()
    options = {"LR_SCHEDULER_NAME": "WarmupPolyLR", "POLY_LR_POWER": 2.0, "MAX_ITER": 40, "WARMUP_ITERS": 0}
    cfg.merge_from_list([word for key, value in options.items() for word in (f"SOLVER.{key}", value)])
    assert [build_lr_factor(cfg)(i) for i in (0, 20, 40, 41)] == pytest.approx([1.0, 0.25, 0.0, 0.0])
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = 4, 0.0
    assert build_lr_factor(cfg)(2) == pytest.approx(0.81 / 2) and build_lr_factor(cfg)(4) == pytest.approx(0.81)


@pytest.mark.parametrize(("max_iter", "warmup"), [(1300, 50), (500, 50), (300, 30), (39, 3), (9, 0)])
def test_a_warm_up_is_at_most_a_tenth_of_the_training(max_iter: int, warmup: int) -> None:
    """The cosine's own value is reached at the end of the warm-up, and not one iteration before."""
    cfg = get_cfg()
    options = {"LR_SCHEDULER_NAME": "WarmupCosineLR", "MAX_ITER": max_iter, "WARMUP_ITERS": 50}
    cfg.merge_from_list([word for key, value in options.items() for word in (f"SOLVER.{key}", value)])
    factor = build_lr_factor(cfg)
    cosine = [cosine_factor(iteration, max_iter=max_iter) for iteration in range(max_iter)]
    assert [factor(iteration) for iteration in range(warmup, max_iter)] == pytest.approx(cosine[warmup:])
    assert all(factor(iteration) < cosine[iteration] for iteration in range(warmup))


@pytest.mark.parametrize("key", ["BASE_LR", "WEIGHT_DECAY"])
def test_negative_rates(key: str) -> None:
    """Error, with the key; 0 trains nothing but is one."""
    cfg = get_cfg()
    cfg.merge_from_list([f"SOLVER.{key}", "0.0"])
    build_optimizer(cfg, nn.Linear(1, 1))
    cfg.merge_from_list([f"SOLVER.{key}", "-1.0"])
    with pytest.raises(UserError, match=f"SOLVER.{key} is -1"):
        build_optimizer(cfg, nn.Linear(1, 1))
