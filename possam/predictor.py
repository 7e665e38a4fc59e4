"""From an image file or array and words to what is in the picture, with any model of the project.

Symbols: H and W the height and width of the original image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sam_common.config import CfgNode, get_cfg, resolve_device
from sam_common.data.images import read_image, resize_image, shortest_edge_size
from sam_common.engine.checkpoint import frozen_sha256, load_trained, read_checkpoint
from sam_common.errors import UserError
from sam_common.masks.rle import area_and_box
from sam_common.method import build_model
from sam_common.structures import Instances, Vocabulary

Panoptic = tuple[Tensor, list[dict[str, Any]]]
"""The id map, int32 [H, W] with 0 where void, and per segment a dict of id, category_id, isthing and score."""

MAX_MASK_PIXELS = 2**21
"""Of a larger image the masks are made at this many pixels and then enlarged: models make one float map per query."""


class Predictor:
    """Runs a model on one image at a time, at the size its configuration tests at.

    Example:
        predictor = Predictor.from_config("configs/possam_T.yaml", weights="model_final.pth", cfg=cfg)
        ids, segments = predictor("street.jpg", parse_vocabulary("dog|puppy, cat; sky, grass:stuff"))["panoptic_seg"]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        min_size: int,
        max_size: int,
        device: torch.device | str = "cpu",
        max_mask_pixels: int = MAX_MASK_PIXELS,
    ) -> None:
        """Args: the model; the shorter side to resize to and the bound of the longer one, pixels; where to run; see
        `MAX_MASK_PIXELS`."""
        self.model = model.to(device).eval()
        self.min_size = min_size
        self.max_size = max_size
        self.max_mask_pixels = max_mask_pixels

    @classmethod
    def from_config(
        cls,
        config_file: str | os.PathLike,
        *,
        weights: str = "",
        options: Sequence[str] = (),
        cfg: CfgNode | None = None,
    ) -> Predictor:
        """Builds the model that a configuration file describes.

        Args:
            config_file: a path, or the name of a shipped one.
            weights: a checkpoint of a training run, instead of `MODEL.WEIGHTS`; `random` leaves the trained part as
                it is initialised.
            options: `KEY VALUE` pairs that override the file.
            cfg: the keys to start from, where a method has added its own; the shared ones by default.

        Raises:
            UserError: a key, a file or the weights cannot be used, or there are no weights.
        """
        cfg = read_config(config_file, options, cfg)
        model = load_model(cfg, weights, config_file)
        device = resolve_device(cfg.MODEL.DEVICE)
        return cls(model, min_size=cfg.INPUT.MIN_SIZE_TEST, max_size=cfg.INPUT.MAX_SIZE_TEST, device=device)

    @torch.inference_mode()
    def __call__(
        self,
        image: str | os.PathLike | np.ndarray | Tensor,
        vocabulary: Vocabulary | None = None,
        *,
        confidence_threshold: float = 0.0,
    ) -> dict[str, Any]:
        """What the model sees in an image, at the image's own size.

        Args:
            image: the path of a file, or uint8 RGB [H, W, 3] as an array; a tensor is [3, H, W].
            vocabulary: the classes to find; by default those the model was trained on.
            confidence_threshold: segments and instances that score less are dropped.

        Returns:
            The model's outputs for this image: `panoptic_seg` (see `Panoptic`), `instances`, `sem_seg_labels` (int
            [H, W], indices of classes), `sem_seg`, as configured.

        Raises:
            UserError: the image cannot be read, or there is no vocabulary.
        """
        file_name = "" if isinstance(image, np.ndarray | Tensor) else os.fspath(image)
        pixels = image_tensor(image)
        original = (pixels.shape[1], pixels.shape[2])
        height, width = mask_size(original, self.max_mask_pixels)
        inputs = {
            "image": resize_image(pixels, shortest_edge_size(original, self.min_size, self.max_size)),
            "height": height,
            "width": width,
            "file_name": file_name,
            "image_id": file_name,
            "vocabulary": self.vocabulary_or_default(vocabulary),
        }
        outputs = dict(self.model([inputs])[0])
        if "panoptic_seg" in outputs:
            ids, segments = keep_confident(outputs["panoptic_seg"], confidence_threshold)
            outputs["panoptic_seg"] = _enlarge(ids, original), segments
        if "instances" in outputs:
            found = outputs["instances"]
            outputs["instances"] = _enlarge_instances(found[found.scores >= confidence_threshold], original)
        for key in {"sem_seg", "sem_seg_labels"} & outputs.keys():
            outputs[key] = _enlarge(outputs[key], original)
        return outputs

    def vocabulary_or_default(self, vocabulary: Vocabulary | None) -> Vocabulary:
        """The vocabulary given, or else the one the model was trained on.

        Raises:
            UserError: there is neither.
        """
        chosen = vocabulary or cast("Vocabulary", self.model.training_vocabulary)
        if not chosen:
            raise UserError("no vocabulary was given, and this model has not been trained on one")
        return chosen


def read_config(config_file: str | os.PathLike, options: Sequence[str] = (), cfg: CfgNode | None = None) -> CfgNode:
    """The configuration of a file, or of a shipped one by name, with `KEY VALUE` overrides; see `from_config`.

    Raises:
        UserError: there is no such file, or a key or value cannot be used.
    """
    cfg = (cfg or get_cfg()).clone()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(options)
    return cfg


def load_model(cfg: CfgNode, weights: str, source: str | os.PathLike) -> nn.Module:
    """The model that a configuration describes, trained, on the CPU.

    Args:
        weights: a checkpoint of a training run, instead of `MODEL.WEIGHTS`; `random` leaves the trained part as it is
            initialised.
        source: what to call the configuration where it names no weights.

    Raises:
        UserError: the configuration or the weights cannot be used, or there are no weights.
    """
    weights = weights or cfg.MODEL.WEIGHTS
    if not weights:
        raise UserError(
            f"{source} names no trained weights: give the model_final.pth of a training run as weights "
            "or MODEL.WEIGHTS (`random` tries out an untrained model)"
        )
    content = read_checkpoint(weights) if weights != "random" else {}
    with torch.random.fork_rng(devices=[]):
        # Encoders that are `random` by choice are drawn again as the training drew them.
        torch.manual_seed(content.get("seed", max(cfg.SEED, 0)))
        model = build_model(cfg)
    if content:
        load_trained(model, content, weights, frozen=frozen_sha256(model))
    return model


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


def coco_segments(panoptic: Panoptic, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """`segments_info` of the COCO panoptic format, with scores where segments have one: class ids of the vocabulary,
    boxes XYWH in pixels."""
    ids = panoptic[0].cpu().numpy()
    found = []
    for segment in panoptic[1]:
        mask = ids == segment["id"]
        if not mask.any():
            continue
        category = vocabulary[segment["category_id"]]
        score = {"score": round(float(segment["score"]), 4)} if "score" in segment else {}
        found.append(
            {
                "id": int(segment["id"]),
                "category_id": category.id,
                "isthing": int(category.is_thing),
                **score,
                **area_and_box(mask),
                "iscrowd": 0,
            }
        )
    return found


def coco_json(images: list[dict], annotations: list[dict], vocabulary: Vocabulary) -> dict[str, Any]:
    """The content of a COCO panoptic JSON; `synonyms` is an addition that our own reader understands."""
    categories = [
        {"id": c.id, "name": c.name, "isthing": int(c.is_thing), "synonyms": list(c.synonyms)} for c in vocabulary
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def image_tensor(image: str | os.PathLike | np.ndarray | Tensor) -> Tensor:
    """An image as uint8 RGB [3, H, W]: of a file, of an array [H, W, 3], or a tensor [3, H, W] as it is.

    Raises:
        UserError: the file cannot be read, or the array or tensor is of another kind.
    """
    if not isinstance(image, np.ndarray | Tensor):
        return read_image(image)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0) if isinstance(image, np.ndarray) else image
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != torch.uint8 or not pixels.numel():
        raise UserError(f"an image is uint8 RGB [H, W, 3], this one is {pixels.dtype} {list(image.shape)}")
    return pixels
