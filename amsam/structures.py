"""What AM-SAM's data, models and evaluator pass to each other."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor

from sam_common.contracts import ModelInput, Record


class MaskRecord(Record, total=False):
    """An image with a mask of class indices (`amsam.data.image_masks`)."""

    mask_file_name: str
    num_classes: int
    mask_threshold: int  # the darkest value of the only class; missing where masks have two values


def name_of(record: MaskRecord) -> str:
    """The name of its image within its folder, by which users know it: what this reader makes the id."""
    return str(record["image_id"])


class FewShotInput(ModelInput, total=False):
    """What AM-SAM is given of an image, which has its own size (`amsam.data.mapper`)."""

    boxes: Tensor  # [n, 4] XYXY; n = 0: no box prompts
    box_found: bool  # else the box is the whole image
    content: str  # a name of the image's content, by which what is computed of it is kept
    labels: Tensor  # [H, W] int64, 0 the background, 1 … K, -1 where nothing is said; in training
    level: int  # of the optimisation that it is for


class FewShotOutput(TypedDict):
    """What it makes of it: [K+1, H, W] probabilities, the background first."""

    few_shot: Tensor
