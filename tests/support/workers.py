"""What spawned processes do in test_launch.py; importing it costs them little."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from unittest import mock

import torch
from lightning_fabric import Fabric

from sam_common.engine import launch
from sam_common.errors import UserError


@contextlib.contextmanager
def quick_start() -> Iterator[None]:
    """Processes fork from a server that has imported the tool already."""
    multiprocessing.set_forkserver_preload(["detectron2_sam.commands.train.run"])
    with mock.patch.object(launch, "START_METHOD", "forkserver"):
        yield


def sum_of_ranks(fabric: Fabric, offset: int) -> float:
    return float(fabric.all_reduce(torch.tensor(float(fabric.global_rank + offset)), reduce_op="sum"))


def mistake_at_rank_1(fabric: Fabric) -> None:
    """Rank 0 waits for ever, as it does in a collective that rank 1 never joins."""
    if fabric.global_rank == 1:
        raise UserError("the folder of rank 1 is missing")
    signal.pause()


def killed_at_rank_1(fabric: Fabric) -> None:
    """As when memory runs out."""
    if fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()
