"""What the predictors of the methods share: from a configuration to its trained model, and pictures in any form."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sam_common.config import UNTRAINED, CfgNode, UnknownKeyError, get_cfg, one_of, resolve_device
from sam_common.data.images import read_image, rgb_pixels
from sam_common.engine.checkpoint import frozen_sha256, load_trained, read_checkpoint
from sam_common.errors import UserError

Picture = str | os.PathLike | Image.Image | np.ndarray | Tensor
"""The path of a file, a PIL image, an array uint8 RGB [H, W, 3], or a tensor uint8 RGB [3, H, W]."""


P = TypeVar("P", bound="BasePredictor")


class BasePredictor:
    """Runs a trained model on one image at a time; a method's own says what it is asked and what it answers.

    Attributes:
        builders: `MODEL.META_ARCHITECTURE` -> what builds it.
    """

    builders: ClassVar[Mapping[str, Callable[[CfgNode], nn.Module]]]

    def __init__(self, model: nn.Module, *, device: torch.device | str = "cpu") -> None:
        """Args: the model; where to run."""
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()

    @classmethod
    def from_config(
        cls: type[P],
        config: str | os.PathLike | CfgNode,
        *,
        weights: str | os.PathLike = "",
        options: Sequence[object] = (),
    ) -> P:
        """Builds the model that a configuration describes.

        Args:
            config: the name of a shipped configuration, the path of a file, or one that has been read.
            weights: a checkpoint of a training run, instead of `MODEL.WEIGHTS`; `random` leaves the trained part as it
                is initialised.
            options: `KEY VALUE` pairs that override the configuration.

        Raises:
            UserError: a key, a file or the weights cannot be used, or there are no weights.
        """
        cfg = cls._read_config(config, options)
        if not isinstance(weights, str | os.PathLike):
            raise UserError(f"weights are the path of a file, or random, this is {type(weights).__name__}")
        weights = os.fspath(weights) or cfg.MODEL.WEIGHTS
        if not weights:
            name = "the configuration" if isinstance(config, CfgNode) else config
            raise UserError(
                f"{name} names no trained weights: give the model_final.pth of a training run as weights "
                "(--weights of a command) or MODEL.WEIGHTS; `random` tries out an untrained model"
            )
        content = cls.read_weights(weights) if weights != UNTRAINED else {}
        with torch.random.fork_rng(devices=[]):
            # Encoders that are `random` by choice are drawn again as the training drew them.
            torch.manual_seed(content.get("seed", max(cfg.SEED, 0)))
            model = cls.builders[cfg.MODEL.META_ARCHITECTURE](cfg)
        if content:
            load_trained(model, content, weights, frozen=frozen_sha256(model))
        return cls(model, **cls.arguments(cfg, content), device=resolve_device(cfg.MODEL.DEVICE))

    @staticmethod
    def add_config(cfg: CfgNode) -> None:
        """Adds the method's keys."""

    @staticmethod
    def read_weights(path: str) -> dict[str, Any]:
        """The content of a file of weights; raises UserError where it cannot be read."""
        return read_checkpoint(path)

    @staticmethod
    def arguments(cfg: CfgNode, content: dict[str, Any]) -> dict[str, Any]:
        """What the constructor takes beside model and device, from the configuration and the content of the weights."""
        return {}

    @classmethod
    def _read_config(cls, config: str | os.PathLike | CfgNode, options: Sequence[object]) -> CfgNode:
        if isinstance(config, CfgNode):
            cfg = config.clone()
        elif isinstance(config, str | os.PathLike):
            cfg = get_cfg()
            cls.add_config(cfg)
            try:
                cfg.merge_from_file(config)
            except UnknownKeyError as error:
                raise UserError(
                    f"{error}; if it belongs to another method than {' or '.join(cls.builders)}, delete that method's "
                    "sections, or run `detectron2-sam predict`, which knows all keys"
                ) from error
        else:
            raise UserError(f"a configuration is a name or a path, this is {type(config).__name__}")
        if isinstance(options, str) or not isinstance(options, Sequence):
            raise UserError(f"options are a list, KEY VALUE KEY VALUE …, this is {type(options).__name__}")
        cfg.merge_from_list([str(word) for word in options])
        one_of("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, cls.builders)
        return cfg


def image_tensor(image: Picture) -> Tensor:
    """A picture as uint8 RGB [3, H, W] on the CPU.

    Raises:
        UserError: the file cannot be read, or the picture is of another kind.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        return rgb_pixels(image, "the image")
    if not isinstance(image, np.ndarray | Tensor):
        raise UserError(f"an image is a path, a PIL image, an array or a tensor, this is {type(image).__name__}")
    shape = tuple(image.shape)
    channels = shape[:1] if isinstance(image, Tensor) else shape[-1:]
    if len(shape) != 3 or channels != (3,) or 0 in shape or image.dtype not in (np.uint8, torch.uint8):
        expected = "tensor is uint8 RGB [3, H, W]" if isinstance(image, Tensor) else "array is uint8 RGB [H, W, 3]"
        raise UserError(f"an image {expected}, this one is {image.dtype} {list(shape)}")
    if isinstance(image, Tensor):
        return image.cpu()
    return torch.from_numpy(np.require(image, requirements=["C", "W"])).movedim(-1, 0)


def name_of(image: Picture) -> str:
    """The path of a picture that is given as one, else ""."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else ""
