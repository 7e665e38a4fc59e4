"""What AM-SAM found in a picture: the class of every pixel, in labels/<name>.png, 0 the background."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from sam_common import prediction
from sam_common.io.files import atomic_path
from sam_common.io.inputs import Input
from sam_common.masks.rle import encode_mask
from sam_common.reporting.drawing import draw_panoptic
from sam_common.structures import Category


@dataclass
class Prediction(prediction.Prediction):
    """The class of every pixel.

    Attributes:
        labels: int64 [H, W], 0 the background, 1 … K.
        classes: names of the labels 1 … K.
    """

    labels: Tensor
    classes: list[str]

    def draw(self) -> Image.Image:
        vocabulary = tuple(Category(name, (name,)) for name in self.classes)
        segments = [{"id": label, "category_id": label - 1} for label in self._found()]
        pixels = self.image.permute(1, 2, 0).numpy()
        return Image.fromarray(draw_panoptic(pixels, self.labels.numpy(), segments, vocabulary))

    def describe(self) -> str:
        """The share of the picture that each class has: "worm 12.5%"."""
        shares = [f"{self.classes[label - 1]} {(self.labels == label).float().mean():.1%}" for label in self._found()]
        return ", ".join(shares) or "background only"

    def to_coco(self) -> list[dict[str, Any]]:
        return [
            {"label": label, "class": self.classes[label - 1], "segmentation": encode_mask(self.labels == label)}
            for label in self._found()
        ]

    def files(self, folder: Path) -> PredictionFiles:
        return PredictionFiles(folder)

    def _found(self) -> list[int]:
        return [label for label in self.labels.unique().tolist() if label > 0]


class PredictionFiles(prediction.PredictionFiles[Prediction]):
    """Writes the labels of a run."""

    def maps(self, source: Input) -> list[Path]:
        return [self.folder / "labels" / f"{source.name}.png"]

    def add_found(self, image: dict[str, Any], source: Input, prediction: Prediction) -> None:
        with atomic_path(self.maps(source)[0]) as path:
            Image.fromarray(prediction.labels.numpy().astype(np.uint8)).save(path)
