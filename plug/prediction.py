"""Models that complete objects: boxes of visible parts in, whole objects out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from plug.predictor import Predictor
from plug.results import Prediction, PredictionFiles
from sam_common.boxes.boxes import no_boxes
from sam_common.boxes.given import BoxPrompts
from sam_common.config import CfgNode
from sam_common.errors import UserError
from sam_common.io.inputs import Input
from sam_common.prediction import refuse


class BoxesTask:
    """Completes the objects in boxes (see `sam_common.prediction.Task`)."""

    name = "amodal"

    def __init__(self, args: argparse.Namespace, inputs: list[Input], cfg: CfgNode) -> None:
        """Raises UserError where the command line or the box file makes no sense for such a model."""
        why = f"is for models that look for classes; {args.config_file} is given boxes: --boxes, --box or --detector"
        refuse(args, ("vocabulary", "task"), why)
        self.args, self.cfg = args, cfg
        self.prompts = BoxPrompts(args, inputs, needed=True)
        if args.detector is None and (videos := [source.path for source in inputs if source.is_video]):
            raise UserError(f"{videos[0]} is a video, whose boxes only a --detector can give")
        if args.box is not None and len(inputs) != 1:
            raise UserError(f"--box is for one picture, --input names {len(inputs)}; give --boxes FILE")
        self.files = PredictionFiles(Path(args.output))

    def load(self) -> None:
        self.predictor = Predictor.from_config(self.cfg, weights=self.args.weights)
        self.prompts.load(self.predictor.device)

    def look(self, image: Tensor, source: Input) -> Prediction:
        try:
            boxes = self.prompts(image, source)
            if not isinstance(boxes, Tensor):
                boxes = (boxes or no_boxes()).confident(self.prompts.threshold)
            return self.predictor(image, boxes)
        except UserError as error:
            raise UserError(f"{source.path}: {self.args.boxes or 'the command line'}: {error}") from error

    def describe_video(self) -> dict[str, Any]:
        return {}
