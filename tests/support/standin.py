"""A stand-in method for the tests of the engine: a model of 18 parameters, a data set without files, an evaluator."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from detectron2_sam.commands.train.run import run as train_net_run
from possam.config import add_possam_config
from sam_common import method
from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.layers.processes import gather
from sam_common.method import Method
from sam_common.structures import Category, Vocabulary
from tests.support.workers import quick_start

VOCABULARY = (Category("dog", ("dog",)), Category("sky", ("sky",), False))
NUM_IMAGES = 12

EVENTS: dict[tuple[int, str], Callable[[Tensor], Tensor]] = {}
"""(call of the mapper by this process, from 0; "train" | "test") -> what befalls that image."""


class StandIn(nn.Module):
    """Regresses y = 3x - 1 through a frozen layer; draws noise for each image from the image's own seed."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"value"}
        self.encoder = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.training_vocabulary: Vocabulary = ()

    def forward(self, batch: list[dict[str, Any]], whole: list[dict[str, Any]] | None = None) -> Any:
        images = torch.stack([entry["image"] for entry in batch]).to(self.head.weight.device)
        if not self.training:
            return [{"value": row} for row in self.predict(images)]
        self.steps += 1
        seeds = [torch.Generator().manual_seed(entry["seed"]) for entry in batch]
        noise = torch.stack([torch.randn(4, generator=generator) for generator in seeds]).to(images)
        error = self.predict(images + 0.1 * noise) - (3 * images - 1)[:, :2]
        means = error.square().sum(dim=0) / len(whole or batch)
        return {"loss_a": means[0], "loss_b": 2 * means[1]}

    def predict(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.encoder(images)))


class Mapper:
    """The record's number -> an image of four numbers."""

    def __init__(self, kind: str) -> None:
        self.kind, self.calls = kind, 0

    def __call__(self, record: dict[str, Any], seed: int = 0) -> dict[str, Any]:
        image = torch.randn(4, generator=torch.Generator().manual_seed(record["image_id"]))
        event = EVENTS.get((self.calls, self.kind))
        self.calls += 1
        item = {"file_name": record["file_name"], "image_id": record["image_id"], "vocabulary": VOCABULARY}
        return {**item, "image": image if event is None else event(image), "seed": seed}


class MeanEvaluator:
    """The mean prediction, and how many images it is of."""

    judges = ("value",)
    truth = ""
    rules: Mapping[str, str] = {}

    def __init__(self, spec: DatasetSpec, *, output_dir: object, training_vocabulary: Vocabulary | None) -> None:
        self.reset()

    def reset(self) -> None:
        self.values: list[float] = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        self.values += [float(output["value"].mean()) for output in outputs]

    def evaluate(self) -> dict[str, dict[str, float]]:
        values = [value for part in gather(self.values) for value in part]
        metrics = {"mean": sum(values) / len(values), "n": float(len(values)), "nothing": float("nan"), "mean-dog": 1.0}
        return {"regression": metrics}


def nan(image: Tensor) -> Tensor:
    return image * float("nan")


def terminate(image: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGTERM)
    return image


def records() -> list[dict[str, Any]]:
    return [{"file_name": f"image_{i}.jpg", "image_id": i} for i in range(NUM_IMAGES)]


def data(training: bool) -> tuple[list[dict[str, Any]], Mapper]:
    return records(), Mapper("train" if training else "test")


METHOD = Method(
    name="StandIn",
    add_config=add_possam_config,  # it reads none, but a configuration of PosSAM is what its runs are given
    architectures={"StandIn": lambda cfg: StandIn()},
    truths={"standin": (MeanEvaluator,)},
    training_set=lambda cfg, specs: data(training=True),
    test_set=lambda cfg, spec: data(training=False),
    validation=lambda cfg, specs: specs[0] if specs[0].name == "chosen" else None,
    kernels=lambda device: "kernels: none",
)


def install() -> None:
    """Makes model, data sets, mapper and evaluator known to the engine. What trains on `chosen` is validated on it."""
    method.register(METHOD)
    for name in ("standin", "chosen"):
        catalog.register(DatasetSpec(name, records, lambda: VOCABULARY, truth="standin"))


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """`install` for as long as a test runs."""
    with contextlib.ExitStack() as stack:
        for table in (method._methods, catalog._specs, catalog._origin, EVENTS):
            stack.enter_context(mock.patch.dict(table))  # type: ignore[arg-type]
        stack.enter_context(quick_start())
        install()
        yield


def arguments(output: object, *more: str, flags: tuple[str, ...] = ()) -> list[str]:
    """A command line of the tool that trains the stand-in for six iterations of four images."""
    base = {
        "MODEL.META_ARCHITECTURE": "StandIn",
        "MODEL.DEVICE": "cpu",
        "DATASETS.TRAIN": "('standin',)",
        "DATASETS.TEST": "('standin',)",
        "DATALOADER.NUM_WORKERS": "0",
        "SOLVER.IMS_PER_BATCH": "4",
        "SOLVER.MAX_ITER": "6",
        "SOLVER.WARMUP_ITERS": "2",
        "SOLVER.BASE_LR": "0.05",
        "SOLVER.CHECKPOINT_PERIOD": "3",
        "OUTPUT_DIR": str(output),
    }
    pairs = [word for pair in base.items() for word in pair]
    return ["--config-file", "configs/possam_base.yaml", "--engine", "fabric", *flags, *pairs, *more]


def run(fabric: Fabric, *args: Any) -> Any:
    """`train_net.run` in a spawned process, where the stand-in is not known yet."""
    install()
    return train_net_run(fabric, *args)


def run_and_terminate_parent(fabric: Fabric, *args: Any) -> Any:
    """As `run`; in iteration 4 rank 1 sends SIGTERM to the process that the user sees."""
    if fabric.global_rank == 1:
        EVENTS[8, "train"] = terminate_parent
    return run(fabric, *args)


def run_with_nan_at_rank_1(fabric: Fabric, *args: Any) -> Any:
    """As `run`; in iteration 3 the first image of rank 1 is not finite."""
    if fabric.global_rank == 1:
        EVENTS[6, "train"] = nan
    return run(fabric, *args)


def terminate_parent(image: Tensor) -> Tensor:
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None
    os.kill(parent.pid, signal.SIGTERM)
    return image
