"""What the engine makes of a configuration: values that no part could work with are told by their key."""

from __future__ import annotations

import pytest

from sam_common.config import get_cfg
from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine.build import EVALUATORS, check_evaluation
from sam_common.engine.build_data import build_mapper
from sam_common.errors import UserError
from tests.sam_common.engine.standin import StandIn, installed


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
        build_mapper(cfg, "panoptic", (), training=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.BOXES.JITTER_TRAIN", "0.5", "JITTER_TRAIN is 0.5; give a part of a box's side, from 0 to less than"),
        ("INPUT.BOXES.JITTER_TEST", "-0.1", "JITTER_TEST is -0.1"),
        ("INPUT.BOXES.MATCH_IOU", "0.0", "MATCH_IOU is 0.0; give more than 0"),
    ],
)
def test_boxes_that_cannot_be_made(key: str, value: str, message: str) -> None:
    """Edges that move past each other, and boxes that would match what they do not touch, are told by their key."""
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        build_mapper(cfg, "amodal", (), training=True)


def test_an_evaluation_that_cannot_be_is_told_before_the_training() -> None:
    """The kinds of truth have evaluators; one that serves nothing, or a kind nobody knows, is one line."""
    assert EVALUATORS.keys() == {"panoptic", "instance", "semantic", "amodal"}
    with installed():
        for kind in ("semantic", "depth"):
            catalog.register(DatasetSpec(kind, list, tuple, evaluator=kind))
        cfg, model = get_cfg(), StandIn()
        cfg.DATASETS.TEST = ("standin",)
        check_evaluation(cfg, model)
        for name, message in (
            ("semantic", "data set semantic has truth for sem_seg but the model makes value: switch"),
            ("depth", "the evaluator of depth is 'depth'; choose one of panoptic, instance, semantic"),
        ):
            cfg.DATASETS.TEST = (name,)
            with pytest.raises(UserError, match=message):
                check_evaluation(cfg, model)
