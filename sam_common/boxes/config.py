"""The keys that say where boxes come from, for methods that are prompted with boxes."""

from __future__ import annotations

from sam_common.boxes.boxes import BoxSource
from sam_common.boxes.detectors import build_box_source
from sam_common.config import CfgNode, add_missing
from sam_common.errors import UserError


def add_boxes_config(cfg: CfgNode) -> None:
    """Adds `INPUT.BOXES`; calling it again changes nothing."""
    boxes = {
        "JITTER_TRAIN": 0.0,  # how far an edge moves at most, as a fraction of the box's side
        "JITTER_TEST": 0.0,
        "SOURCE": "ground_truth",  # in testing: ground_truth | a path *.json of COCO results | a detector
        "SCORE_THRESHOLD": 0.5,  # of boxes that a file or a detector gives
    }
    add_missing(cfg, {"INPUT": {"BOXES": boxes}})


def box_source(cfg: CfgNode) -> BoxSource | None:
    """`INPUT.BOXES.SOURCE`; None where boxes are those of the annotation.

    Raises:
        UserError: there is no such file or detector.
    """
    return build_box_source(cfg.INPUT.BOXES.SOURCE, score_threshold=cfg.INPUT.BOXES.SCORE_THRESHOLD)


def box_jitter(cfg: CfgNode, *, training: bool) -> float:
    """By how much of its side each edge of a true box is moved at most.

    Raises:
        UserError: it is out of range.
    """
    for key in ("JITTER_TRAIN", "JITTER_TEST"):
        if not 0 <= cfg.INPUT.BOXES[key] < 0.5:
            raise UserError(
                f"INPUT.BOXES.{key} is {cfg.INPUT.BOXES[key]}; give a fraction of a box's side, from 0 to less than 0.5"
            )
    return cfg.INPUT.BOXES.JITTER_TRAIN if training else cfg.INPUT.BOXES.JITTER_TEST
