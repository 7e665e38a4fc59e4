"""YOLO detectors of the package `ultralytics`, which is imported when one is built. Package and models are AGPL-3.0.

    ultralytics:models/yolov8n.pt    a file of the package's own format, yours or an official one, from
                                     https://github.com/ultralytics/assets/releases

Such a file is a pickled Python object, which may run anything when it is unpickled. Here it cannot: whatever class it
names becomes an empty `_Saved`, of which numbers and names alone are taken. They go into a model that the package
builds from a description of its own, never from one in the working folder, whose words the package would run. Nothing
is downloaded, since no checksums of these files are published.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from sam_common.boxes.boxes import Boxes
from sam_common.errors import UserError
from sam_common.text import first_line

logger = logging.getLogger(__name__)

_SIDE, _STRIDE = 640, 32
"""Pixels: what the longer side is resized to, and what both are padded to a multiple of."""
_PADDING = 114 / 255
_LEAST_SCORE, _NMS_IOU, _MOST = 0.001, 0.7, 300


class UltralyticsDetector:
    """Finds objects in an image, uint8 RGB [3, H, W]; YOLOv8 and YOLO11, detection models alone.

    Args:
        path: of a *.pt file; `yolov8n.yaml` with `weights="random"`.
        weights: "" for those of the file, `random` for none.
        device: where to run.

    Raises:
        UserError: the package is missing, the file cannot be used, or it is another kind of model.
    """

    def __init__(self, path: str, *, weights: str = "", device: torch.device | str = "cpu") -> None:
        try:
            import ultralytics
            from ultralytics.nn.tasks import DetectionModel
        except ImportError as error:
            raise UserError(
                f"the detector ultralytics:{path} needs the package ultralytics, which cannot be imported ({error}); "
                "its licence is AGPL-3.0: if that suits you, pip install 'ultralytics>=8.3'"
            ) from error
        if weights not in ("", "random"):
            raise UserError(f"ultralytics:{path} has its own weights; name the file of others in its place")
        logger.warning("detector ultralytics:%s: the package and its models are AGPL-3.0, which asks for the source of "
                       "what they are built into, services too", path)  # fmt: skip
        if weights == "random":
            self.model = DetectionModel(path, verbose=False)
            names = dict(self.model.names)
        else:
            description, names, state = read_yolo(path)
            known = _description(Path(ultralytics.__file__).parent / "cfg" / "models", description)
            if known is None:
                raise UserError(f"{path} is a {description}, which the package ultralytics here does not describe")
            self.model = DetectionModel(known, nc=len(names), verbose=False)
            try:
                self.model.load_state_dict(state)
            except RuntimeError as error:
                raise UserError(f"{path} does not fit {description}: {str(error).splitlines()[-1].strip()}") from error
        self.path, self.names, self.device = path, names, torch.device(device)
        self.model.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Boxes:
        pixels, scale = letterbox(image)
        output = self.model(pixels[None].to(self.device))
        rows = output[0] if isinstance(output, tuple) else output  # [1, 4 + classes, anchors]
        if rows.shape[1] != 4 + len(self.names):
            raise UserError(f"ultralytics:{self.path} is no YOLOv8 or YOLO11 that detects boxes; give one that does")
        centre_and_size, of_classes = rows[0].float().cpu().T.split((4, len(self.names)), dim=1)
        scores, labels = of_classes.max(1)
        good = scores >= _LEAST_SCORE
        centre, size = centre_and_size[good].split(2, dim=1)
        boxes, scores, labels = torch.cat((centre - size / 2, centre + size / 2), dim=1), scores[good], labels[good]
        kept = batched_nms(boxes, scores, labels, _NMS_IOU)[:_MOST]
        return Boxes(boxes[kept] / scale, scores[kept], [self.names[label] for label in labels[kept].tolist()])


def letterbox(image: Tensor) -> tuple[Tensor, float]:
    """An image uint8 [3, H, W] as the model wants it, in [0, 1], padded at the right and the bottom; and its scale."""
    scale = _SIDE / max(image.shape[1:])
    height, width = (max(1, round(side * scale)) for side in image.shape[1:])
    resized = F.interpolate(image[None].float() / 255, (height, width), mode="bilinear", antialias=True)[0]
    return F.pad(resized, (0, -width % _STRIDE, 0, -height % _STRIDE), value=_PADDING), scale


def _description(folder: Path, name: str) -> dict[str, Any] | None:
    """What the package tells in its own files of `yolov8n.yaml`, which is `yolov8.yaml` at the scale n."""
    scale = re.search(r"\d([nslmx])(?=[.-])", name)
    plain = name if scale is None else name[: scale.start(1)] + name[scale.end(1) :]
    file = next((path for word in (name, plain) for path in sorted(folder.rglob(word))), None)
    if file is None:
        return None
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {**told, "scale": scale[1] if scale is not None else "", "yaml_file": name}


class _Saved:
    """What stands for any object of a file: it has the object's attributes and none of its code."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def read_yolo(path: str) -> tuple[str, dict[int, str], dict[str, Tensor]]:
    """Of a *.pt file: the name of the package's description (`yolov8n.yaml`), the names of classes, the weights.

    Raises:
        UserError: there is no such file, or it is none of a YOLO model.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path}; get it from https://github.com/ultralytics/assets/releases")
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Saved, name) for name in classes]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds what no YOLO model does, perhaps code that would run; it was not loaded"
        ) from error
    except Exception as error:  # a damaged file fails in many ways
        reason = first_line(error)
        raise UserError(f"{path} cannot be read as a YOLO model: {reason}") from error
    parts = [content.get(key) for key in ("ema", "model")] if isinstance(content, dict) else []
    model = next((part for part in parts if isinstance(part, _Saved)), None)
    told = vars(model) if model is not None else {}
    description, names = told.get("yaml"), told.get("names")
    file = description.get("yaml_file", "") if isinstance(description, dict) else ""
    file = Path(file).name if isinstance(file, str) else ""
    names = dict(enumerate(names)) if isinstance(names, list) else names if isinstance(names, dict) else {}
    is_named = names and list(names) == list(range(len(names))) and all(isinstance(n, str) for n in names.values())
    if model is None or not is_named or not re.fullmatch(r"[\w.-]+\.yaml", file):
        raise UserError(f"{path} is no YOLO model: it lacks the model, its description or its classes")
    try:
        weights = dict(_tensors(model, ""))
    except (RecursionError, AttributeError, TypeError) as error:  # parts of the wrong kind, or one inside itself
        raise UserError(f"{path} is no YOLO model: its layers are damaged") from error
    return file, names, weights


def _tensors(saved: _Saved, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module that was saved whole, by their names in its state dict."""
    told = vars(saved)
    for kind in ("_parameters", "_buffers"):
        for name, value in told.get(kind, {}).items():
            if isinstance(value, Tensor) and name not in told.get("_non_persistent_buffers_set", ()):
                yield prefix + name, value.detach().float() if value.is_floating_point() else value
    for name, child in told.get("_modules", {}).items():
        if isinstance(child, _Saved):
            yield from _tensors(child, f"{prefix}{name}.")
