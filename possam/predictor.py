"""From a picture and words to what is in the picture.

Symbols: H and W the height and width of the original image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from possam.config import add_possam_config, build_possam, checked_sizes
from possam.results import Prediction
from sam_common.config import CfgNode, one_of
from sam_common.contracts import Panoptic
from sam_common.data.images import resize_image, shortest_edge_size
from sam_common.data.vocabulary_file import Words, parse_vocabulary
from sam_common.errors import UserError
from sam_common.predictor import BasePredictor, Picture, image_tensor, name_of
from sam_common.structures import Instances, Vocabulary

MAX_MASK_PIXELS = 2**21
"""Of a larger image the masks are made at this many pixels and then enlarged: models make one float map per query."""

SWITCHES = {"panoptic": "PANOPTIC_ON", "semantic": "SEMANTIC_LABELS_ON", "instance": "INSTANCE_ON"}
"""Task -> the key of `MODEL.POSSAM.TEST` that makes what it needs."""


class Predictor(BasePredictor):
    """Runs PosSAM on one image at a time, at the size its configuration tests at.

    Example:
        predictor = Predictor.from_config("possam_T", weights="model_final.pth")
        result = predictor("street.jpg", "dog|puppy, cat; sky, grass:stuff")
        result.draw().show()
        ids, segments = result.panoptic_seg
    """

    add_config = staticmethod(add_possam_config)
    builders: ClassVar = {"PosSAM": build_possam}

    def __init__(self, model: nn.Module, *, min_size: int, max_size: int, device: torch.device | str = "cpu") -> None:
        """Args: the model; the shorter side to resize to and the bound of the longer one, pixels; where to run."""
        super().__init__(model, device=device)
        self.min_size = min_size
        self.max_size = max_size

    @classmethod
    def from_config(
        cls,
        config: str | os.PathLike | CfgNode,
        *,
        weights: str | os.PathLike = "",
        options: Sequence[object] = (),
        task: str = "",
    ) -> Predictor:
        """As `BasePredictor.from_config`; with a `task`, which is panoptic, semantic or instance, the model makes that
        alone, instead of what the configuration says."""
        if task:
            one_of("task", task, SWITCHES)
            for key in (*SWITCHES.values(), "SEMANTIC_ON"):
                options = [*options, f"MODEL.POSSAM.TEST.{key}", key == SWITCHES[task]]
        return super().from_config(config, weights=weights, options=options)

    @staticmethod
    def arguments(cfg: CfgNode, content: dict[str, Any]) -> dict[str, Any]:
        min_size, max_size = checked_sizes(cfg, "MIN_SIZE_TEST", "MAX_SIZE_TEST")
        return {"min_size": min_size, "max_size": max_size}

    @torch.inference_mode()
    def __call__(
        self, image: Picture, vocabulary: Words | None = None, *, confidence_threshold: float | None = None
    ) -> Prediction:
        """What the model sees in an image, at the image's own size.

        Args:
            image: the path of a file, a PIL image, an array uint8 RGB [H, W, 3] or a tensor uint8 RGB [3, H, W].
            vocabulary: the classes to find, as `parse_vocabulary` takes them; by default those of the training.
            confidence_threshold: segments and instances that score less are dropped; by default instances below 0.5,
                but no segments, since they compete for pixels.

        Raises:
            UserError: the image or the words cannot be read, or there is no vocabulary.
        """
        pixels, file_name = image_tensor(image), name_of(image)
        classes = self.vocabulary_or_default(vocabulary)
        original = (pixels.shape[1], pixels.shape[2])
        height, width = mask_size(original, MAX_MASK_PIXELS)
        inputs = {
            "image": resize_image(pixels, shortest_edge_size(original, self.min_size, self.max_size)),
            "height": height,
            "width": width,
            "file_name": file_name,
            "image_id": file_name,
            "vocabulary": classes,
        }
        outputs: dict[str, Any] = dict(self.model([inputs])[0])
        if "panoptic_seg" in outputs:
            ids, segments = keep_confident(outputs["panoptic_seg"], confidence_threshold or 0.0)
            outputs["panoptic_seg"] = _enlarge(ids, original).cpu(), segments
        if "instances" in outputs:
            found, threshold = outputs["instances"], 0.5 if confidence_threshold is None else confidence_threshold
            outputs["instances"] = _enlarge_instances(found[found.scores >= threshold], original).to("cpu")
        for key in {"sem_seg", "sem_seg_labels"} & outputs.keys():
            outputs[key] = _enlarge(outputs[key], original).cpu()
        return Prediction(pixels, file_name, classes, **outputs)

    def vocabulary_or_default(self, vocabulary: Words | None) -> Vocabulary:
        """The vocabulary given, or else the one the model was trained on.

        Raises:
            UserError: it cannot be read, or there is neither.
        """
        if vocabulary is not None:
            return parse_vocabulary(vocabulary)
        if not self.model.training_vocabulary:
            raise UserError("no vocabulary was given, and this model has not been trained on one")
        return cast(Vocabulary, self.model.training_vocabulary)


def mask_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """(height, width) of an image's masks: its own, or the same shape at `max_pixels` where it has more."""
    scale = math.sqrt(min(1.0, max_pixels / (size[0] * size[1])))
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., h, w] of any type -> [..., *size], each pixel a copy of the nearest; itself at its own size."""
    if maps.shape[-2:] == size:
        return maps
    rows, columns = (
        ((torch.arange(new, device=maps.device) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for new, old in zip(size, maps.shape[-2:], strict=True)
    )
    return maps.index_select(-2, rows).index_select(-1, columns)


def _enlarge_instances(instances: Instances, size: tuple[int, int]) -> Instances:
    masks = _enlarge(instances.pred_masks, size)
    height, width = instances.image_size
    scale = instances.pred_boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    return Instances(size, masks, instances.scores, instances.pred_classes, instances.pred_boxes * scale)


def keep_confident(panoptic: Panoptic, threshold: float) -> Panoptic:
    """The prediction without the segments that score less than `threshold`; their pixels become void."""
    ids, segments = panoptic
    kept = [segment for segment in segments if segment["score"] >= threshold]
    known = torch.tensor([segment["id"] for segment in kept], dtype=ids.dtype, device=ids.device)
    return torch.where(torch.isin(ids, known), ids, 0), kept
