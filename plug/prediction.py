"""Models that complete objects: boxes of visible parts in, whole objects out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plug.predictor import Predictor
from plug.results import Prediction, PredictionFiles
from sam_common.boxes.box_files import read_box_file
from sam_common.boxes.boxes import Boxes, no_boxes
from sam_common.boxes.detectors import build_detector
from sam_common.boxes.given import assign, parse_box
from sam_common.config import CfgNode
from sam_common.errors import UserError
from sam_common.io.inputs import Input
from sam_common.prediction import refuse

Prompts = Callable[[Input, Tensor], Boxes]
"""(input, its image uint8 RGB [3, H, W]) -> the boxes to ask about."""


class BoxesTask:
    """Completes the objects in boxes (see `sam_common.prediction.Task`)."""

    name = "amodal"

    def __init__(self, args: argparse.Namespace, inputs: list[Input], cfg: CfgNode) -> None:
        """Raises UserError where the command line or the box file makes no sense for such a model."""
        why = f"is for models that look for classes; {args.config_file} is given boxes: --boxes, --box or --detector"
        refuse(args, ("vocabulary", "task"), why)
        self.args = args
        self.cfg = cfg
        self.threshold = 0.5 if args.confidence_threshold is None else args.confidence_threshold
        self.prompts = self._given(inputs)
        self.files = PredictionFiles(Path(args.output))

    def load(self) -> None:
        args = self.args
        self.predictor = Predictor.from_config(self.cfg, weights=args.weights)
        if self.prompts is None:
            weights, device = args.detector_weights or "", self.predictor.device
            detect = build_detector(args.detector, score_threshold=self.threshold, weights=weights, device=device)
            self.prompts = lambda source, image: detect(image)

    def look(self, image: Tensor, source: Input) -> Prediction:
        assert self.prompts is not None  # load() has been called
        try:
            return self.predictor(image, self.prompts(source, image))
        except UserError as error:
            raise UserError(f"{source.path}: {self.args.boxes or 'the command line'}: {error}") from error

    def describe_video(self) -> dict[str, Any]:
        return {}

    def _given(self, inputs: Sequence[Input]) -> Prompts | None:
        """The boxes that the command line gives; None where a detector will."""
        args = self.args
        given = [name for name in ("boxes", "box", "detector") if getattr(args, name) is not None]
        if len(given) != 1:
            what = " and ".join(f"--{name}" for name in given) or "none"
            raise UserError(f"{args.config_file} is given boxes: one of --boxes, --box and --detector; this is {what}")
        if given != ["detector"]:
            refuse(args, ("detector_weights",), "belongs to --detector")
            for source in inputs:
                if source.is_video:
                    raise UserError(f"{source.path} is a video, whose boxes only a --detector can give")
        if args.box is not None:
            if len(inputs) != 1:
                raise UserError(f"--box is for one picture, --input names {len(inputs)}; give --boxes FILE")
            found = Boxes(torch.tensor([parse_box(text) for text in args.box]), torch.ones(len(args.box)))
            return lambda source, image: found
        if args.boxes is None:
            return None
        assigned = assign(read_box_file(args.boxes), inputs, args.boxes)
        return lambda source, image: assigned.get(source.path, no_boxes()).confident(self.threshold)
