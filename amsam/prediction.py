"""Few-shot models: an adapter and boxes in, a class for every pixel out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from amsam.predictor import FewShotPredictor
from sam_common.boxes.box_files import read_box_file
from sam_common.boxes.boxes import Boxes
from sam_common.boxes.detectors import build_detector
from sam_common.boxes.given import assign, parse_box
from sam_common.errors import UserError
from sam_common.io.files import atomic_path
from sam_common.io.inputs import Input
from sam_common.masks.rle import encode_mask
from sam_common.prediction import Found, refuse
from sam_common.reporting.drawing import draw_panoptic
from sam_common.structures import Category


class LabelsTask:
    """Labels pixels with the classes of an adapter (see `sam_common.prediction.Task`).

    Boxes come from --box, or from --boxes or --detector, among which is chosen as in the training; without any the
    whole picture is the box.
    """

    name = "few_shot"

    def __init__(self, args: argparse.Namespace, inputs: list[Input]) -> None:
        """Raises UserError where the command line or the box file makes no sense for such a model."""
        refuse(args, ("vocabulary", "task"), "is for models that look for classes; an adapter has its own")
        refuse(args, ("config_file",), "is not needed with --adapter, which holds its settings")
        given = [name for name in ("boxes", "box", "detector") if getattr(args, name) is not None]
        if len(given) > 1:
            raise UserError(f"give one of --boxes, --box and --detector, not {' and '.join(f'--{n}' for n in given)}")
        if given != ["detector"]:
            refuse(args, ("detector_weights",), "belongs to --detector")
        self.args = args
        self.output = Path(args.output)
        self.threshold = 0.5 if args.confidence_threshold is None else args.confidence_threshold
        self.boxes = assign(read_box_file(args.boxes), inputs, args.boxes) if args.boxes is not None else {}
        self.given = [parse_box(text) for text in args.box or ()]
        self.detect: Any = None

    def written(self, source: Input) -> list[Path]:
        if source.is_video:
            return [self.output / f"{source.name}.mp4", self.output / f"{source.name}.jsonl"]
        return [self.output / f"{source.name}.png", self.output / "labels" / f"{source.name}.png"]

    def load(self) -> None:
        args = self.args
        self.predictor = FewShotPredictor.from_adapter(args.adapter, options=args.opts)
        if args.detector is not None:
            weights, device = args.detector_weights or "", self.predictor.device
            self.detect = build_detector(args.detector, score_threshold=self.threshold, weights=weights, device=device)

    def look(self, image: Tensor, source: Input) -> Found:
        try:
            labels = self.predictor(image, self._prompt(image, source))
        except UserError as error:
            raise UserError(f"{source.path}: {error}") from error
        vocabulary = tuple(Category(name, (name,)) for name in self.predictor.classes)
        found = [label for label in labels.unique().tolist() if label > 0]
        segments = [{"id": label, "category_id": label - 1} for label in found]
        picture = draw_panoptic(image.permute(1, 2, 0).numpy(), labels.numpy(), segments, vocabulary)
        shares = [f"{vocabulary[label - 1].name} {(labels == label).float().mean():.1%}" for label in found]
        return Found(labels, picture, ", ".join(shares) or "background only")

    def add(self, number: int, source: Input, outputs: Tensor) -> None:
        with atomic_path(self.written(source)[1]) as path:
            Image.fromarray(outputs.numpy().astype(np.uint8)).save(path)

    def describe_video(self) -> dict[str, Any]:
        return {"classes": self.predictor.classes}

    def segments(self, outputs: Tensor) -> list[dict[str, Any]]:
        return [
            {"label": label, "class": self.predictor.classes[label - 1], "segmentation": encode_mask(outputs == label)}
            for label in outputs.unique().tolist()
            if label > 0
        ]

    def finish(self) -> None:
        """Every picture's labels are written already."""

    def _prompt(self, image: Tensor, source: Input) -> Tensor | Boxes | None:
        if self.given:
            return torch.tensor(self.given)
        return self.detect(image) if self.detect is not None else self.boxes.get(source.path)
