"""From a picture and boxes to whole objects."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from plug.config import add_plug_config, build_plug
from plug.results import Prediction
from sam_common.boxes.boxes import Boxes, GivenBoxes, checked_boxes
from sam_common.predictor import BasePredictor, Picture, image_tensor, name_of


class Predictor(BasePredictor):
    """Runs PLUG on one image at a time, at the image's own size.

    Example:
        predictor = Predictor.from_config("plug_T", weights="model_final.pth")
        result = predictor("street.jpg", [[10, 20, 110, 220]])
        result.draw().show()
        whole, seen = result.instances.amodal_mask(0), result.instances.visible_mask(0)
    """

    add_config = staticmethod(add_plug_config)
    builders: ClassVar = {"PLUG": build_plug}  # SAM as it is, which PLUG is compared with, asks for other boxes

    @torch.inference_mode()
    def __call__(self, image: Picture, boxes: GivenBoxes) -> Prediction:
        """The whole objects, in the order of their boxes.

        Args:
            image: the path of a file, a PIL image, an array uint8 RGB [H, W, 3] or a tensor uint8 RGB [3, H, W].
            boxes: [N, 4] XYXY in pixels, of the visible parts, as a list, an array, a tensor or `Boxes`; N may be 0.
                What of a box lies outside is cut off.

        Raises:
            UserError: the image cannot be read, the boxes are not [N, 4], or one has no area inside the image.
        """
        pixels, file_name = image_tensor(image), name_of(image)
        size = (pixels.shape[1], pixels.shape[2])
        given = boxes.boxes if isinstance(boxes, Boxes) else boxes
        corners = checked_boxes(given, size, f"{file_name}: " if file_name else "")
        asked = replace(boxes, boxes=corners) if isinstance(boxes, Boxes) else Boxes(corners, torch.ones(len(corners)))
        found = self.model([{"image": pixels, "boxes": corners}])[0]["amodal"]
        return Prediction(pixels, file_name, found.to("cpu"), asked)
