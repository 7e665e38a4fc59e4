"""From a picture and boxes to the classes that a few labelled images taught."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from amsam.adapter import read_adapter
from amsam.box_prompts import select_boxes
from amsam.config import add_amsam_config, build_amsam, cfg_of_adapter
from amsam.results import Prediction
from sam_common.boxes.boxes import Boxes, GivenBoxes, checked_boxes, no_boxes
from sam_common.config import CfgNode
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.errors import UserError
from sam_common.predictor import BasePredictor, Picture, image_tensor, name_of


class Predictor(BasePredictor):
    """Runs AM-SAM on one image at a time, with the weights of an adapter or a checkpoint.

    Example:
        predictor = Predictor.from_adapter("adapter.safetensors")   # or from_config("amsam_T", weights="model.pth")
        result = predictor("slide.png", [[10, 20, 110, 220]])
        result.draw().show()
        labels = result.labels   # 0 the background, 1 … K

    Attributes:
        classes: names of the labels 1 … K.
    """

    add_config = staticmethod(add_amsam_config)
    builders: ClassVar = {"AMSAM": build_amsam}

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        policy: str = "top1",
        box_classes: Collection[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        """Args: the model; the names of its classes; how it learned to choose among boxes that are found, see
        `select_boxes`; where to run."""
        super().__init__(model, device=device)
        self.policy, self.box_classes = policy, box_classes
        self.classes = list(classes)

    @classmethod
    def from_adapter(cls, path: str | os.PathLike, *, options: Sequence[object] = ()) -> Predictor:
        """Builds the model of an adapter file, which holds its settings.

        Args:
            options: `KEY VALUE` pairs that override its settings, such as where SAM's weights lie here.

        Raises:
            UserError: the file is no adapter or damaged, or is for another encoder than SAM's weights here.
        """
        settings = read_adapter(path).settings
        return cls.from_config(cfg_of_adapter(settings, [str(word) for word in options]), weights=path)

    @torch.inference_mode()
    def __call__(self, image: Picture, boxes: GivenBoxes | None = None) -> Prediction:
        """The class of every pixel.

        Args:
            image: the path of a file, a PIL image, an array uint8 RGB [H, W, 3] or a tensor uint8 RGB [3, H, W].
            boxes: [n, 4] XYXY in pixels, of the object, as a list, an array or a tensor: all of them count; or `Boxes`
                that were found, among which is chosen as in the training. None or n = 0: the whole image, or none where
                it learned without boxes.

        Raises:
            UserError: the image cannot be read, the boxes are not [n, 4] or one has no area inside the image, or the
                model learned without boxes.
        """
        pixels, file_name = image_tensor(image), name_of(image)
        corners = self._corners(boxes, (pixels.shape[1], pixels.shape[2]), f"{file_name}: " if file_name else "")
        labels = self.model([{"image": pixels, "boxes": corners}])[0]["few_shot"].argmax(0).cpu()
        return Prediction(pixels, file_name, labels, self.classes)

    def _corners(self, boxes: GivenBoxes | None, size: tuple[int, int], where: str) -> Tensor:
        """[n, 4], n at least 1 unless the model learned without boxes."""
        found = no_boxes() if boxes is None else boxes
        if not isinstance(found, Boxes):
            given = checked_boxes(found, size, where)
            if len(given) and self.policy != "none":
                return given
            found = Boxes(given, torch.ones(len(given)))
        if self.policy == "none" and len(found):
            raise UserError("this model learned without boxes; give none")
        return checked_boxes(select_boxes(found, self.policy, size, classes=self.box_classes)[0], size, where)

    @staticmethod
    def read_weights(path: str) -> dict[str, Any]:
        """A checkpoint (`*.pth`), which does not know what its classes are called, or an adapter."""
        if Path(path).suffix == ".pth":
            return read_checkpoint(path)
        adapter = read_adapter(path)
        return adapter.content | {"classes": adapter.classes, "path": path}

    @staticmethod
    def arguments(cfg: CfgNode, content: dict[str, Any]) -> dict[str, Any]:
        known = cfg.MODEL.AMSAM.NUM_CLASSES
        classes = content.get("classes", [f"class {label}" for label in range(1, known + 1)])
        if len(classes) != known:
            raise UserError(f"{content['path']} is damaged: it names {len(classes)} classes, its model has {known}")
        return {"classes": classes, "policy": cfg.INPUT.BOXES.SELECT, "box_classes": cfg.INPUT.BOXES.CLASSES}
