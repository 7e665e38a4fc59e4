"""A fourth method in one file: it learns which colours are the foreground. What it takes to add one.

Only its line in `detectron2_sam/methods.py` is missing, which the test adds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from sam_common import prediction
from sam_common.config import CfgNode
from sam_common.contracts import Losses, ModelInput, Record
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_item
from sam_common.evaluation.evaluator import Evaluator, Results
from sam_common.io.inputs import Input
from sam_common.layers.processes import gather
from sam_common.method import Method, Reader
from sam_common.predictor import BasePredictor
from sam_common.structures import Category, Vocabulary


class ForegroundRecord(Record):
    mask_file_name: str


class ForegroundInput(ModelInput, total=False):
    mask: Tensor  # [h, w] float, 0 or 1, in training


class Foreground(nn.Module):
    """A 1×1 convolution: the model. Its output is `foreground`, [h, w] probabilities."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.outputs = {"foreground"}
        self.training_vocabulary: Vocabulary = ()
        self.scale = rate
        self.colour = nn.Conv2d(3, 1, 1)

    def forward(self, batch: list[ForegroundInput]) -> Losses | list[dict[str, Tensor]]:
        logits = [self.scale * self.colour(entry["image"].float()[None] / 255)[0, 0] for entry in batch]
        if not self.training:
            return [{"foreground": one.sigmoid()} for one in logits]
        pairs = zip(logits, batch, strict=True)
        losses = [F.binary_cross_entropy_with_logits(one, entry["mask"]) for one, entry in pairs]
        return {"loss_foreground": torch.stack(losses).mean()}


def add_config(cfg: CfgNode) -> None:
    if "FOREGROUND" not in cfg.MODEL:
        cfg.MODEL.FOREGROUND = CfgNode({"RATE": 10.0})


def build(cfg: CfgNode) -> Foreground:
    return Foreground(cfg.MODEL.FOREGROUND.RATE)


def folder_spec(name: str, *, images: str, masks: str) -> DatasetSpec:
    """The kind of truth: a folder of pictures, and one of masks with the same names."""

    def load() -> list[ForegroundRecord]:
        records: list[ForegroundRecord] = []
        for path in sorted(Path(images).iterdir()):
            width, height = Image.open(path).size
            mask = str(Path(masks, path.name))
            records.append(
                {
                    "file_name": str(path),
                    "image_id": path.stem,
                    "height": height,
                    "width": width,
                    "mask_file_name": mask,
                }
            )
        return records

    files = {"images": images, "masks": masks}
    return DatasetSpec(name, load, lambda: (Category("thing", ("thing",)),), truth="foreground", files=files)


def read_mask(record: ForegroundRecord) -> Tensor:
    return torch.from_numpy(np.array(Image.open(record["mask_file_name"])) > 0)


def training_item(record: ForegroundRecord, seed: int) -> ForegroundInput:
    return {**read_item(record), "mask": read_mask(record).float()}


def test_item(record: ForegroundRecord, seed: int) -> ModelInput:
    return read_item(record)


class Accuracy(Evaluator):
    """The metric: the share of pixels that are right, per cent."""

    judges = ("foreground",)
    rules: Mapping[str, str] = {"accuracy": "over all pixels of all images"}

    def reset(self) -> None:
        super().reset()
        self.counts = torch.zeros(2, dtype=torch.float64)

    def judge(self, record: ForegroundRecord, item: ModelInput, output: dict[str, Tensor]) -> None:
        right = (output["foreground"].cpu() > 0.5) == read_mask(record)
        self.counts += torch.tensor([right.sum(), right.numel()])

    def evaluate(self) -> Results:
        right, total = torch.stack(gather(self.counts)).sum(0).tolist()
        return {"foreground": {"accuracy": 100 * right / total}}


class Predictor(BasePredictor):
    add_config = staticmethod(add_config)
    builders = {"Foreground": build}  # noqa: RUF012

    @torch.inference_mode()
    def __call__(self, image: Tensor, file_name: str = "") -> Prediction:
        return Prediction(image, file_name, self.model([{"image": image}])[0]["foreground"] > 0.5)


@dataclass
class Prediction(prediction.Prediction):
    mask: Tensor

    def draw(self) -> Image.Image:
        return Image.fromarray(self.mask.numpy())

    def describe(self) -> str:
        return f"{self.mask.float().mean():.0%} foreground"

    def to_coco(self) -> list[dict[str, Any]]:
        return []

    def files(self, folder: Path) -> prediction.PredictionFiles[Any]:
        return prediction.PredictionFiles(folder)


class Task:
    name = "foreground"

    def __init__(self, args: argparse.Namespace, inputs: list[Input], cfg: CfgNode) -> None:
        self.args, self.cfg = args, cfg
        self.files: prediction.PredictionFiles[Any] = prediction.PredictionFiles(Path(args.output))

    def load(self) -> None:
        self.predictor = Predictor.from_config(self.cfg, weights=self.args.weights)

    def look(self, image: Tensor, source: Input) -> Prediction:
        return self.predictor(image, str(source.path))

    def describe_video(self) -> dict[str, Any]:
        return {}


METHOD = Method(
    name="Foreground",
    add_config=add_config,
    architectures={"Foreground": build},
    truths={"foreground": (Accuracy,)},
    training_set=lambda cfg, specs: ([record for spec in specs for record in spec.load()], training_item),
    test_set=lambda cfg, spec: (spec.load(), test_item),
    readers={"foreground": Reader(folder_spec, {"IMAGES": "images", "MASKS": "masks"})},
    prediction=Task,
)
