"""Models that complete objects: boxes of visible parts in, whole objects out."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plug.drawing import draw_amodal
from plug.predictor import AmodalPredictor
from plug.structures import AmodalInstances
from possam.prediction_files import AmodalFiles, coco_amodal
from sam_common.boxes.box_files import read_box_file
from sam_common.boxes.boxes import Boxes, no_boxes
from sam_common.boxes.detectors import build_detector
from sam_common.boxes.given import assign, parse_box
from sam_common.errors import UserError
from sam_common.io.inputs import Input
from sam_common.prediction import Found, refuse
from sam_common.text import counted

Prompts = Callable[[Input, Tensor], Boxes]
"""(input, its image uint8 RGB [3, H, W]) -> the boxes to ask about."""


class BoxesTask:
    """Completes the objects in boxes (see `sam_common.prediction.Task`)."""

    name = "amodal"

    def __init__(self, args: argparse.Namespace, inputs: list[Input]) -> None:
        """Raises UserError where the command line or the box file makes no sense for such a model."""
        why = f"is for models that look for classes; {args.config_file} is given boxes: --boxes, --box or --detector"
        refuse(args, ("vocabulary", "task"), why)
        self.args = args
        self.threshold = 0.5 if args.confidence_threshold is None else args.confidence_threshold
        self.prompts = self._given(inputs)
        self.files = AmodalFiles(Path(args.output))
        self.written = self.files.written
        self.finish = self.files.finish

    def load(self) -> None:
        args = self.args
        self.predictor = AmodalPredictor.from_config(args.config_file, weights=args.weights, options=args.opts)
        if self.prompts is None:
            weights, device = args.detector_weights or "", self.predictor.device
            detect = build_detector(args.detector, score_threshold=self.threshold, weights=weights, device=device)
            self.prompts = lambda source, image: detect(image)

    def look(self, image: Tensor, source: Input) -> Found:
        assert self.prompts is not None  # load() has been called
        boxes = self.prompts(source, image)
        try:
            whole = self.predictor(image, boxes.boxes)
        except UserError as error:
            raise UserError(f"{source.path}: {self.args.boxes or 'the command line'}: {error}") from error
        names = [""] * len(boxes) if boxes.categories is None else boxes.categories
        amodal = _Masks(whole, whole.amodal_mask)
        visible = amodal if whole.pred_visible_masks is None else _Masks(whole, whole.visible_mask)
        words = ["" if name.isdecimal() else name for name in names]
        picture = draw_amodal(image.permute(1, 2, 0).numpy(), amodal, visible, whole.pred_boxes.numpy(), words)
        counts = Counter(word or "object" for word in words)
        summary = ", ".join(counted(number, word) for word, number in counts.items()) or "no boxes"
        return Found((whole, boxes), picture, summary)

    def add(self, number: int, source: Input, outputs: tuple[AmodalInstances, Boxes]) -> None:
        self.files.add(number, source, *outputs)

    def describe_video(self) -> dict[str, Any]:
        return {}

    def segments(self, outputs: tuple[AmodalInstances, Boxes]) -> list[dict[str, Any]]:
        return coco_amodal(*outputs)

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


class _Masks(Sequence[np.ndarray]):
    """Masks [H, W] that are made when they are asked for."""

    def __init__(self, whole: AmodalInstances, make: Callable[[int], Any]) -> None:
        self._number = len(whole)
        self._make = make

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: Any) -> Any:
        return self._make(index).numpy()
