"""A method introduces itself by one object; the engine and the commands ask it, and compare no names.

A fourth method is one folder with such an object, and one line in `detectron2_sam/methods.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sam_common.config import CfgNode
from sam_common.contracts import Losses, Mapper, Record
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.generated.writer import Split
from sam_common.errors import UserError
from sam_common.evaluation.evaluator import Evaluator
from sam_common.io.inputs import Input
from sam_common.prediction import Task

Backward = Callable[[Any], Losses]
"""A batch -> its losses, their gradients in place: what a method that learns at several levels does in an iteration."""


@dataclass(frozen=True)
class Reader:
    """How an entry of `DATASETS.REGISTER` becomes a data set.

    Attributes:
        make: called with the entry's NAME, and the values of its keys as these arguments.
        needed, optional: key of the entry -> argument of `make`.
    """

    make: Callable[..., DatasetSpec]
    needed: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the project knows of a method.

    Attributes:
        name: of its meta-architecture.
        add_config: adds its keys to a cfg that holds the shared ones; calling it again changes nothing.
        architectures: `MODEL.META_ARCHITECTURE` -> builder of the model: its own, and those it is compared with.
        truths: the kinds of ground truth that it learns from (`DatasetSpec.truth`), each with the classes of evaluators
            that the truth serves; an evaluator is made with (spec, output_dir=, training_vocabulary=).
        training_set: (cfg, specs of `DATASETS.TRAIN`) -> the records to train on, and what makes model inputs of them.
            The specs are one or more, all of its kinds of truth. Raises UserError where they cannot be trained on.
        test_set: (cfg, spec) -> the same for a data set to test on.
        validation: (cfg, specs of `DATASETS.TRAIN`) -> what of them is held out to choose the weights by, or None.
        export: (cfg, specs of `DATASETS.TRAIN`, trained model) -> writes to `OUTPUT_DIR` what predicts by itself.
        backward: (cfg, model, optimizer) -> what takes the place of the backward pass; it trains in one process.
        readers: FORMAT of `DATASETS.REGISTER` -> its reader.
        datasets: root of all data sets -> those known by name.
        add_to_world: writes what its data sets of the generated world need beside the scenes of these splits.
        prediction: (arguments of `detectron2-sam predict`, its inputs, cfg) -> what is done with each picture.
        kernels: device -> which kernels its operators run on there, in words, for the log; "" for none.
    """

    name: str
    add_config: Callable[[CfgNode], None]
    architectures: Mapping[str, Callable[[CfgNode], nn.Module]]
    truths: Mapping[str, Sequence[type[Evaluator]]]
    training_set: Callable[[CfgNode, Sequence[DatasetSpec]], tuple[Sequence[Record], Mapper]]
    test_set: Callable[[CfgNode, DatasetSpec], tuple[Sequence[Record], Mapper]]
    validation: Callable[[CfgNode, Sequence[DatasetSpec]], DatasetSpec | None] = lambda cfg, specs: None
    export: Callable[[CfgNode, Sequence[DatasetSpec], nn.Module], None] = lambda cfg, specs, model: None
    backward: Callable[[CfgNode, Any, torch.optim.Optimizer], Backward] | None = None
    readers: Mapping[str, Reader] = field(default_factory=dict)
    datasets: Callable[[Path], Iterable[DatasetSpec]] = lambda root: ()
    add_to_world: Callable[[Sequence[Split]], None] = lambda splits: None
    prediction: Callable[[argparse.Namespace, list[Input], CfgNode], Task] | None = None
    kernels: Callable[[torch.device], str] = lambda device: ""


_methods: dict[str, Method] = {}


def register(method: Method) -> None:
    """Makes a method known to the engine; again changes nothing."""
    _methods[method.name] = method


def methods() -> tuple[Method, ...]:
    """Those that are known, in the order in which they were registered."""
    return tuple(_methods.values())


def find_method(architecture: str) -> Method | None:
    """The method that a `MODEL.META_ARCHITECTURE` belongs to; None where it is no known one's."""
    return next((method for method in methods() if architecture in method.architectures), None)


def method_of(cfg: CfgNode) -> Method:
    """The method that `MODEL.META_ARCHITECTURE` belongs to.

    Raises:
        UserError: it is unknown.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    method = find_method(name)
    if method is None:
        known = ", ".join(sorted(known for each in methods() for known in each.architectures)) or "none is registered"
        raise UserError(f"MODEL.META_ARCHITECTURE {name!r} is unknown; known: {known}")
    return method


def backward_of(cfg: CfgNode) -> Callable[[CfgNode, Any, torch.optim.Optimizer], Backward] | None:
    """What builds the iteration of a model that learns at several levels; None for all others."""
    method = find_method(cfg.MODEL.META_ARCHITECTURE)
    return method.backward if method is not None and method.name == cfg.MODEL.META_ARCHITECTURE else None


def build_model(cfg: CfgNode) -> nn.Module:
    """The model that `MODEL.META_ARCHITECTURE` names, on the CPU, in training mode, frozen weights loaded.

    Raises:
        UserError: the name is unknown, or a key or the frozen weights cannot be used.
    """
    return method_of(cfg).architectures[cfg.MODEL.META_ARCHITECTURE](cfg)
