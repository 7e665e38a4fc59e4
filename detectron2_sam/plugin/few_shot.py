"""AM-SAM, and what it is compared with, as meta-architectures."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor
from torch.nn import functional as F

import amsam.amsam
import amsam.baselines
import amsam.config
from amsam.box_prompts import select_boxes
from amsam.data.image_masks import IGNORE
from detectron2_sam.plugin.modeling import TrainedPart
from detectron2_sam.plugin.structures import IGNORE_LABEL, boxes_of
from sam_common.boxes.boxes import Boxes, no_boxes
from sam_common.errors import UserError


class _FewShot(TrainedPart):
    """Detectron2's inputs and outputs for a model of `few_shot` masks.

    Inputs are those of the model itself, and Detectron2's: `image` may be float; `boxes` its `Boxes`, or missing.
    The box is then chosen, as `INPUT.BOXES.SELECT` says, of those of `instances`, what a detector found, or of
    `proposals`; without any it is the whole image. Boxes are in pixels of `image`; one without area inside it is a
    `UserError`. In training `sem_seg`, with 255 for what is not known, may be in the place of `labels`.
    Outputs are the model's, and `sem_seg` [K+1, height, width], the same probabilities at the size that is asked for.
    """

    @configurable
    def __init__(self, *, select: str, **parts: Any) -> None:
        super().__init__(**parts)
        self.select = select

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "select": cfg.INPUT.BOXES.SELECT}

    def _answer(self, entry: dict[str, Any], output: Any) -> dict[str, Any]:
        return {"sem_seg": _at_asked_size(output["few_shot"], entry)}

    def _complete(self, entry: dict[str, Any]) -> dict[str, Any]:
        image = entry["image"]
        if image.dtype != torch.uint8:
            image = image.round().clamp(0, 255).to(torch.uint8)
        complete = {**entry, "image": image, "boxes": self._boxes(entry)}
        if self.training and "labels" not in entry:
            complete["labels"] = _labels(entry)
        return complete

    def _boxes(self, entry: dict[str, Any]) -> Tensor:
        if "instances" in entry:  # where they have no boxes, the whole image is asked about, not the proposals
            entry = {key: value for key, value in entry.items() if key != "proposals"}
        boxes, found = boxes_of(entry)
        if boxes is not None and found is None:
            return boxes
        offered = no_boxes()
        if boxes is not None and found is not None:
            offered = Boxes(boxes, found.scores.cpu() if found.has("scores") else torch.ones(len(boxes)))
        return select_boxes(offered, self.select, tuple(entry["image"].shape[-2:]))[0]


class AMSAM(_FewShot, amsam.amsam.AMSAM):
    """AM-SAM with Detectron2's inputs and outputs (see `_FewShot`)."""

    arguments = staticmethod(amsam.config.amsam_arguments)


class PromptedSAM(_FewShot, amsam.baselines.PromptedSAM):
    """SAM as it is, asked by the box, with the same."""

    arguments = staticmethod(amsam.config.prompted_sam_arguments)


class BoxRectangle(_FewShot, amsam.baselines.BoxRectangle):
    """The box itself as the answer, with the same."""

    @staticmethod
    def arguments(cfg: CfgNode) -> dict[str, Any]:
        amsam.config.build_box_rectangle(cfg)  # for its checks
        return {}


def _labels(entry: dict[str, Any]) -> Tensor:
    if "sem_seg" not in entry:
        raise UserError(
            f"{entry.get('file_name') or 'a training image'} has no ground truth: give labels or sem_seg; "
            "detectron2_sam.FewShotMapper(cfg, True) reads them"
        )
    labels = entry["sem_seg"].long()
    return torch.where(labels == IGNORE_LABEL, IGNORE, labels)


def _at_asked_size(probabilities: Tensor, entry: dict[str, Any]) -> Tensor:
    """[K+1, h, w] -> [K+1, height, width]; Detectron2's `DefaultPredictor` resizes an image and tells its own size."""
    size = (entry.get("height", probabilities.shape[1]), entry.get("width", probabilities.shape[2]))
    if size == tuple(probabilities.shape[1:]):
        return probabilities
    return F.interpolate(probabilities[None], size, mode="bilinear")[0]
