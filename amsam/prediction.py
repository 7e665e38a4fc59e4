"""Few-shot models: boxes in, a class for every pixel out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from amsam.predictor import Predictor
from amsam.results import Prediction, PredictionFiles
from sam_common.boxes.given import BoxPrompts
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
        self.args, self.cfg = args, cfg
        self.prompts = BoxPrompts(args, inputs)
        self.files = PredictionFiles(Path(args.output))

    def load(self) -> None:
        args = self.args
        if self.cfg is None:
            self.predictor = Predictor.from_adapter(args.adapter, options=args.opts)
        else:
            self.predictor = Predictor.from_config(self.cfg, weights=args.weights)
        self.prompts.load(self.predictor.device)

    def look(self, image: Tensor, source: Input) -> Prediction:
        try:
            return self.predictor(image, self.prompts(image, source))
        except UserError as error:
            raise UserError(f"{source.path}: {error}") from error

    def describe_video(self) -> dict[str, Any]:
        return {"classes": self.predictor.classes}
