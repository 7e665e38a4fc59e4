"""From an image and boxes to whole objects."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from plug.config import add_plug_config
from plug.method import METHOD
from plug.structures import AmodalInstances
from possam.predictor import image_tensor, load_model, read_config
from sam_common.boxes.boxes import checked_boxes
from sam_common.config import get_cfg, one_of, resolve_device
from sam_common.method import register


class AmodalPredictor:
    """Runs PLUG on one image at a time, at the image's own size.

    Example:
        predictor = AmodalPredictor.from_config("configs/plug_T.yaml", weights="model_final.pth")
        found = predictor("street.jpg", [[10, 20, 110, 220]])
        whole, seen = found.amodal_mask(0), found.visible_mask(0)
    """

    def __init__(self, model: nn.Module, *, device: torch.device | str = "cpu") -> None:
        """Args: the model; where to run."""
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()

    @classmethod
    def from_config(
        cls, config_file: str | os.PathLike, *, weights: str = "", options: Sequence[str] = ()
    ) -> AmodalPredictor:
        """Builds the model that a configuration file describes.

        Args:
            config_file: a path, or the name of a shipped one.
            weights: a checkpoint of a training run, instead of `MODEL.WEIGHTS`; `random`: untrained.
            options: `KEY VALUE` pairs that override the file.

        Raises:
            UserError: a key, a file or the weights cannot be used, or there are no weights.
        """
        register(METHOD)
        cfg = get_cfg()
        add_plug_config(cfg)
        cfg = read_config(config_file, options, cfg)
        one_of("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, ("PLUG",))  # SAM as it is asks for other boxes
        return cls(load_model(cfg, weights, config_file), device=resolve_device(cfg.MODEL.DEVICE))

    @torch.inference_mode()
    def __call__(
        self, image: str | os.PathLike | np.ndarray | Tensor, boxes: Tensor | np.ndarray | Sequence[Sequence[float]]
    ) -> AmodalInstances:
        """The whole objects, in the order of their boxes; on the CPU.

        Args:
            image: the path of a file, or uint8 RGB [H, W, 3] as an array; a tensor is [3, H, W].
            boxes: [N, 4] XYXY in pixels, of the visible parts; N may be 0. What of a box lies outside is cut off.

        Raises:
            UserError: the image cannot be read, or a box has no area inside it.
        """
        file_name = "" if isinstance(image, np.ndarray | Tensor) else os.fspath(image)
        pixels = image_tensor(image)
        size = (pixels.shape[1], pixels.shape[2])
        inputs = {"image": pixels, "height": size[0], "width": size[1], "file_name": file_name, "image_id": file_name}
        inputs["boxes"] = checked_boxes(boxes, size, f"{file_name}: " if file_name else "")
        return self.model([inputs])[0]["amodal"].to("cpu")
