"""From an image and boxes to the classes that a few labelled images taught."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from amsam.adapter import read_adapter
from amsam.box_prompts import select_boxes
from amsam.config import cfg_of_adapter
from amsam.method import METHOD
from possam.predictor import image_tensor
from sam_common.boxes.boxes import Boxes, checked_boxes
from sam_common.config import resolve_device
from sam_common.engine.checkpoint import frozen_sha256, load_trained
from sam_common.errors import UserError
from sam_common.method import build_model, register


class FewShotPredictor:
    """Runs a trained model on one image at a time.

    Example:
        predictor = FewShotPredictor.from_adapter("adapter.safetensors")
        labels = predictor("slide.png", [[10, 20, 110, 220]])   # 0 the background, 1 … K

    Attributes:
        classes: names of the labels 1 … K.
    """

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
        self.policy, self.box_classes = policy, box_classes
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.classes = list(classes)

    @classmethod
    def from_adapter(cls, path: str | os.PathLike, *, options: Sequence[str] = ()) -> FewShotPredictor:
        """Builds the model of an adapter file.

        Args:
            options: `KEY VALUE` pairs that override its settings, such as where SAM's weights lie here.

        Raises:
            UserError: the file is no adapter or damaged, or is for another encoder than SAM's weights here.
        """
        adapter = read_adapter(path)
        register(METHOD)
        cfg = cfg_of_adapter(adapter.settings, options)
        if len(adapter.classes) != cfg.MODEL.AMSAM.NUM_CLASSES:
            named, known = len(adapter.classes), cfg.MODEL.AMSAM.NUM_CLASSES
            raise UserError(f"{path} is damaged: it names {named} classes, its model has {known}")
        model = build_model(cfg)
        load_trained(model, adapter.content, str(path), frozen=frozen_sha256(model))
        boxes = {"policy": cfg.INPUT.BOXES.SELECT, "box_classes": cfg.INPUT.BOXES.CLASSES}
        return cls(model, adapter.classes, **boxes, device=resolve_device(cfg.MODEL.DEVICE))

    @torch.inference_mode()
    def __call__(
        self,
        image: str | os.PathLike | np.ndarray | Tensor,
        boxes: Boxes | Tensor | np.ndarray | Sequence[Sequence[float]] | None = None,
    ) -> Tensor:
        """The label of every pixel, int64 [H, W] on the CPU.

        Args:
            image: the path of a file, or uint8 RGB [H, W, 3] as an array; a tensor is [3, H, W].
            boxes: [n, 4] XYXY in pixels, of the object, all of which count; or `Boxes` that were found, among which is
                chosen as in the training. None or n = 0: the whole image, or none where it learned without boxes.

        Raises:
            UserError: the image cannot be read, the boxes are not [n, 4] or one has no area inside the image, or the
                model learned without boxes.
        """
        pixels = image_tensor(image)
        size = (pixels.shape[1], pixels.shape[2])
        entry = {"image": pixels, "boxes": self._corners(boxes, size)}
        return self.model([entry])[0]["few_shot"].argmax(0).cpu()

    def _corners(self, boxes: Any, size: tuple[int, int]) -> Tensor:
        """[n, 4], n at least 1 unless the model learned without boxes."""
        found = boxes
        if not isinstance(found, Boxes):
            given = checked_boxes([] if found is None else found, size)
            if len(given) and self.policy != "none":
                return given
            found = Boxes(given, torch.ones(len(given)))
        if self.policy == "none" and len(found):
            raise UserError("this model learned without boxes; give none")
        return checked_boxes(select_boxes(found, self.policy, size, classes=self.box_classes)[0], size)
