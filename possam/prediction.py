"""Models that find named classes: words in, panoptic, semantic or instance segmentation out."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detectron2_sam.methods import full_cfg
from possam.possam import PosSAM
from possam.prediction_files import PredictionFiles, as_panoptic, coco_masks
from possam.predictor import Panoptic, Predictor, coco_json
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.io.inputs import Input
from sam_common.prediction import Found, refuse
from sam_common.reporting.drawing import draw_panoptic
from sam_common.structures import Vocabulary
from sam_common.text import counted, some

SWITCHES = {"panoptic": "PANOPTIC_ON", "semantic": "SEMANTIC_LABELS_ON", "instance": "INSTANCE_ON"}
"""Task -> the key of `MODEL.POSSAM.TEST` that makes what it needs."""

THRESHOLDS = {"panoptic": 0.0, "semantic": 0.0, "instance": 0.5}
"""Task -> default of --confidence-threshold; pixels compete in the first two, so nothing need be dropped."""


class WordsTask:
    """Looks for the classes of a vocabulary (see `sam_common.prediction.Task`)."""

    def __init__(self, args: argparse.Namespace, inputs: list[Input]) -> None:
        """Raises UserError where the command line makes no sense for such a model."""
        boxes = ("boxes", "box", "detector", "detector_weights")
        refuse(args, boxes, f"is for models that are given boxes; {args.config_file} is given words: --vocabulary")
        self.name = args.task or "panoptic"
        self.args = args
        self.threshold = THRESHOLDS[self.name] if args.confidence_threshold is None else args.confidence_threshold
        self.asked = parse_vocabulary(args.vocabulary) if args.vocabulary is not None else None
        self.files = PredictionFiles(Path(args.output), self.name, ())
        self.written = self.files.written
        self.add = self.files.add
        self.finish = self.files.finish

    def load(self) -> None:
        options = list(self.args.opts)
        for task, key in SWITCHES.items():
            options += [f"MODEL.POSSAM.TEST.{key}", str(task == self.name)]
        self.predictor = Predictor.from_config(
            self.args.config_file, weights=self.args.weights, options=options, cfg=full_cfg()
        )
        self.files.vocabulary = self.predictor.vocabulary_or_default(self.asked)
        warn_of_unknown_words(self.predictor.model, self.files.vocabulary)

    def look(self, image: Tensor, source: Input) -> Found:
        vocabulary = self.files.vocabulary
        outputs = self.predictor(image, vocabulary, confidence_threshold=self.threshold)
        ids, segments = as_panoptic(outputs, self.name)
        picture = draw_panoptic(image.permute(1, 2, 0).numpy(), ids.cpu().numpy(), segments, vocabulary)
        return Found(outputs, picture, describe((ids, segments), vocabulary, count=self.name != "semantic"))

    def describe_video(self) -> dict[str, Any]:
        return {"categories": coco_json([], [], self.files.vocabulary)["categories"]}

    def segments(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        return coco_masks(outputs, self.name, self.files.vocabulary)


def describe(panoptic: Panoptic, vocabulary: Vocabulary, *, count: bool = True) -> str:
    """What was found, in the order of the vocabulary, things counted if asked to: "3 dogs, sky, grass"."""
    counts = Counter(segment["category_id"] for segment in panoptic[1])
    found = []
    for index, category in enumerate(vocabulary):
        if counts[index] and category.is_thing and count:
            found.append(counted(counts[index], category.name))
        elif counts[index]:
            found.append(category.name)
    return ", ".join(found) or "nothing found"


def warn_of_unknown_words(model: nn.Module, vocabulary: Vocabulary) -> None:
    """One line for words that the model's text encoder never learned: it can only guess what they mean."""
    if not isinstance(model, PosSAM):
        return
    unknown = model.clip.unknown_words([word for category in vocabulary for word in category.synonyms])
    if unknown:
        print(f"warning: this model's text encoder has never met: {some(unknown, most=10)}", file=sys.stderr)
