"""Models that find named classes: words in, panoptic, semantic or instance segmentation out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from possam.possam import PosSAM
from possam.predictor import Predictor
from possam.results import Prediction, PredictionFiles
from sam_common.config import CfgNode
from sam_common.data.coco_write import coco_categories
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.io.inputs import Input
from sam_common.prediction import refuse
from sam_common.text import some, warn


class WordsTask:
    """Looks for the classes of a vocabulary (see `sam_common.prediction.Task`)."""

    def __init__(self, args: argparse.Namespace, inputs: list[Input], cfg: CfgNode) -> None:
        """Raises UserError where the command line makes no sense for such a model."""
        boxes = ("boxes", "box", "detector", "detector_weights")
        refuse(args, boxes, f"is for models that are given boxes; {args.config_file} is given words: --vocabulary")
        self.name = args.task or "panoptic"
        self.args = args
        self.cfg = cfg
        self.asked = parse_vocabulary(args.vocabulary) if args.vocabulary is not None else None
        self.files = PredictionFiles(Path(args.output), self.name)

    def load(self) -> None:
        self.predictor = Predictor.from_config(self.cfg, weights=self.args.weights, task=self.name)
        self.vocabulary = self.predictor.vocabulary_or_default(self.asked)
        words = [word for category in self.vocabulary for word in category.synonyms]
        if unknown := cast(PosSAM, self.predictor.model).clip.unknown_words(words):  # it can only guess what they mean
            warn(f"this model's text encoder has never met: {some(unknown, most=10)}")

    def look(self, image: Tensor, source: Input) -> Prediction:
        return self.predictor(image, self.vocabulary, confidence_threshold=self.args.confidence_threshold)

    def describe_video(self) -> dict[str, Any]:
        return {"categories": coco_categories(self.vocabulary)}
