"""Detectron2's troubles on current machines, worked round here and nowhere else.

Two more are solved by what replaces the part in question: files are read by `checkpoint.Checkpointer` (weights_only,
no pickles), and `SamViTBackbone` spells `size_divisibility` as Detectron2's readers of it do (its own ViT pyramid
doesn't, so nobody pads for it).
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.engine import defaults

from sam_common.engine.launch import choose_precision
from sam_common.errors import UserError


@contextlib.contextmanager
def distributed_on(device: torch.device) -> Iterator[None]:
    """Lets `DefaultTrainer` distribute a model on the CPU.

    Its `create_ddp_model` always names a GPU (`device_ids`), which torch refuses for a CPU model.
    """
    original = defaults.create_ddp_model
    if device.type == "cpu":
        defaults.create_ddp_model = partial(original, device_ids=None)
    try:
        yield
    finally:
        defaults.create_ddp_model = original


def amp_precision(cfg: CfgNode) -> torch.dtype:
    """What `SOLVER.AMP` asks for, as under our own engine, but on a GPU only: `AMPTrainer` insists on CUDA.

    Raises:
        UserError: mixed precision is asked for by name on a CPU, or there is no such precision.
    """
    device, amp = torch.device(cfg.MODEL.DEVICE), cfg.SOLVER.AMP
    precision = choose_precision(device, amp.PRECISION if amp.ENABLED else "float32")
    if device.type == "cpu" and precision != torch.float32:
        raise UserError(
            f"SOLVER.AMP.PRECISION is {amp.PRECISION} on a CPU, where Detectron2's AMPTrainer cannot train; "
            "choose auto, or --engine fabric"
        )
    return precision


def without_cpu_amp(cfg: CfgNode) -> CfgNode:
    """The same configuration, with Detectron2's `AMPTrainer` only where the precision needs it."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.AMP.ENABLED = amp_precision(cfg) != torch.float32
    return cfg


def stock_config(name: str) -> Path:
    """A configuration file that Detectron2 ships, such as `COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml`.

    In place of `detectron2.model_zoo`, which imports `pkg_resources`: setuptools no longer has it.
    """
    return Path(detectron2.__file__).parent / "model_zoo" / "configs" / name


@contextlib.contextmanager
def panoptic_statistics() -> Iterator[list[Any]]:
    """Collects the `PQStat` that panopticapi averages meanwhile: Detectron2's evaluator drops its counts by class."""
    from panopticapi.evaluation import PQStat

    average, collected = PQStat.pq_average, []

    def collecting(statistics: Any, *args: Any, **kwargs: Any) -> Any:
        collected.append(statistics)
        return average(statistics, *args, **kwargs)

    PQStat.pq_average = collecting
    try:
        yield collected
    finally:
        PQStat.pq_average = average


def has_panopticapi() -> bool:
    """Whether Detectron2's panoptic evaluator can run; what it needs is on no package registry."""
    return importlib.util.find_spec("panopticapi") is not None
