"""Few-shot models: boxes in, a class for every pixel out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amsam.predictor import Predictor
from amsam.results import Prediction, PredictionFiles
from sam_common.boxes.box_files import read_box_file
from sam_common.boxes.boxes import Boxes
from sam_common.boxes.detectors import build_detector
from sam_common.boxes.given import assign, parse_box
from sam_common.config import CfgNode
from sam_common.errors import UserError
from sam_common.io.inputs import Input
from sam_common.prediction import refuse


class LabelsTask:
    """Labels pixels with the classes of a few-shot training (see `sam_common.prediction.Task`).

    Boxes come from --box, or from --boxes or --detector, among which is chosen as in the training; without any the
    whole picture is the box.
    """

    name = "few_shot"

    def __init__(self, args: argparse.Namespace, inputs: list[Input], cfg: CfgNode | None) -> None:
        """Args: of the command line; what to look at; the configuration, or None with an adapter, which holds its own.

        Raises:
            UserError: the command line or the box file makes no sense for such a model.
        """
        refuse(args, ("vocabulary", "task"), "is for models that look for classes; a few-shot model has its own")
        if cfg is None:
            refuse(args, ("config_file", "weights"), "is not needed with --adapter, which holds both")
        given = [name for name in ("boxes", "box", "detector") if getattr(args, name) is not None]
        if len(given) > 1:
            raise UserError(f"give one of --boxes, --box and --detector, not {' and '.join(f'--{n}' for n in given)}")
        if given != ["detector"]:
            refuse(args, ("detector_weights",), "belongs to --detector")
        self.args, self.cfg = args, cfg
        self.threshold = 0.5 if args.confidence_threshold is None else args.confidence_threshold
        self.boxes = assign(read_box_file(args.boxes), inputs, args.boxes) if args.boxes is not None else {}
        self.given = [parse_box(text) for text in args.box or ()]
        self.detect: Any = None
        self.files = PredictionFiles(Path(args.output))

    def load(self) -> None:
        args = self.args
        if self.cfg is None:
            self.predictor = Predictor.from_adapter(args.adapter, options=args.opts)
        else:
            self.predictor = Predictor.from_config(self.cfg, weights=args.weights)
        if args.detector is not None:
            weights, device = args.detector_weights or "", self.predictor.device
            self.detect = build_detector(args.detector, score_threshold=self.threshold, weights=weights, device=device)

    def look(self, image: Tensor, source: Input) -> Prediction:
        try:
            return self.predictor(image, self._prompt(image, source))
        except UserError as error:
            raise UserError(f"{source.path}: {error}") from error

    def describe_video(self) -> dict[str, Any]:
        return {"classes": self.predictor.classes}

    def _prompt(self, image: Tensor, source: Input) -> Tensor | Boxes | None:
        if self.given:
            return torch.tensor(self.given)
        return self.detect(image) if self.detect is not None else self.boxes.get(source.path)
