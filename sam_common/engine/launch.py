"""Processes, devices and precision, over lightning-fabric."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from sam_common.config import resolve_device
from sam_common.errors import Interrupted, UserError
from sam_common.signals import stop_on_signals

START_METHOD: Literal["spawn", "forkserver"] = "spawn"
"""How processes start. A fork server imports once for all of them, but CUDA does not survive a fork, and the server
not the SIGTERM of a scheduler: it is for tests."""

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Autocast(MixedPrecision):
    """Fabric's mixed precision without its conversion of inputs: batches hold bytes, bools and frozen dataclasses."""

    def convert_input(self, data: Any) -> Any:
        return data


class _Machines(LightningEnvironment):
    """Where the processes meet, from the flags: environment variables of a scheduler or an earlier run do not count."""

    def __init__(self, machines: int, machine_rank: int, dist_url: str) -> None:
        super().__init__()
        self._address, self._main_port = meeting_point(dist_url, machines, machine_rank)
        self._machine_rank = machine_rank

    @property
    def main_address(self) -> str:
        return self._address

    def node_rank(self) -> int:
        return self._machine_rank


def choose_precision(device: torch.device, name: str) -> torch.dtype:
    """The precision that `SOLVER.AMP.PRECISION` names for a device; tensors that train are float32 in any case.

    Args:
        name: `float32`; `bf16`; `fp16`; or `auto`: bfloat16 on a GPU that has it, float16 on another, float32 on a CPU.

    Raises:
        UserError: there is no such precision, or not on this device.
    """
    if name == "auto":
        kind = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        name = kind if device.type == "cuda" else "float32"
    if name not in PRECISIONS:
        raise UserError(f"SOLVER.AMP.PRECISION is {name!r}; choose auto, bf16 or fp16")
    if name == "fp16" and device.type == "cpu":
        raise UserError("SOLVER.AMP.PRECISION is fp16 but a CPU trains in float32 or bf16; choose auto or bf16")
    return PRECISIONS[name]


def build_precision(device: torch.device, dtype: torch.dtype) -> Precision:
    """Autocast to `dtype`, with a scaler of the loss where that is float16; none where it is float32."""
    if dtype == torch.float32:
        return Precision()
    return _Autocast("bf16-mixed" if dtype == torch.bfloat16 else "16-mixed", device.type)


def grad_scaler(fabric: Fabric) -> torch.amp.GradScaler | None:
    """The scaler that float16 needs; None in other precisions."""
    precision = fabric.strategy.precision
    return precision.scaler if isinstance(precision, MixedPrecision) else None


def launch(
    function: Callable[..., Any],
    *args: Any,
    device: torch.device,
    processes: int = 1,
    machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    precision: torch.dtype = torch.float32,
) -> Any:
    """Runs `function(fabric, *args)` in `processes` processes on each of `machines` machines; rank 0's result.

    In a process that torchrun started, which is one of them, it only runs it and returns its result; how many machines
    there are and where they meet is then torchrun's to say.

    Args:
        function: importable by name where there is more than one process; results picklable.
        device: kind of device; an index is kept when there is one process.
        dist_url: `tcp://HOST:PORT` of machine 0, as in Detectron2; `auto` on one machine.
        precision: from `choose_precision`.

    Raises:
        UserError: raised by `function` in any process, or the machine lacks the devices.
        Interrupted: raised by `function`.
    """
    _check_devices(device, processes)
    torchrun = started_by_torchrun()
    several = torchrun or processes * machines > 1
    meeting = TorchElasticEnvironment() if torchrun else _Machines(machines, machine_rank, dist_url)
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index] if device.type == "cuda" and device.index is not None else processes,
        num_nodes=int(os.environ["GROUP_WORLD_SIZE"]) if torchrun else machines,
        strategy=DDPStrategy(start_method="popen" if torchrun else START_METHOD) if several else "auto",
        plugins=[build_precision(device, precision), meeting],
    )
    if torchrun or not several:
        return fabric.launch(partial(_run, function=function, args=args))
    errors = multiprocessing.get_context(START_METHOD).SimpleQueue()
    try:
        with stop_on_signals() as stop:  # this process only waits: it passes signals on to those that train
            outcome = fabric.launch(partial(_guarded, errors=errors, function=function, args=args))
    except torch.multiprocessing.ProcessExitedException as error:
        if stop.signum:  # before the processes had begun to listen
            raise Interrupted("stopped before the first iteration", stop.signum) from None
        if not errors.empty():
            raise errors.get() from None
        raise UserError(f"a training process ended: {error}; out of memory? Go on with --resume") from error
    if isinstance(outcome, Interrupted):
        raise Interrupted(outcome.message, stop.signum or outcome.signum)
    return outcome


def _run(fabric: Fabric, *, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """`function`, and an orderly end of the process group, unless it failed: then others may still wait in it."""
    try:
        return function(fabric, *args)
    finally:
        error = sys.exc_info()[1]
        if torch.distributed.is_initialized() and (error is None or isinstance(error, Interrupted)):
            torch.distributed.destroy_process_group()


def _guarded(fabric: Fabric, *, errors: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """`_run` in a process of its own, where an exception would reach the parent only as the text of a traceback."""
    try:
        return _run(fabric, function=function, args=args)
    except UserError as error:
        errors.put(error)
        sys.exit(2)  # the parent then ends the other processes
    except Interrupted as interrupted:
        return interrupted


def share_buffers(module: nn.Module) -> None:
    """Gives every process the buffers of the first: what a layer counts in training (the statistics of a batch norm)
    differs among them, and all should evaluate the model that the first one saves."""
    if torch.distributed.is_initialized():
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def started_by_torchrun() -> bool:
    """Whether this process is one that torchrun started."""
    return TorchElasticEnvironment.detect()


def is_first_process(machine_rank: int) -> bool:
    """Whether this process checks for all: others may come when the first has begun to write."""
    return (int(os.environ["RANK"]) if started_by_torchrun() else machine_rank) == 0


def choose_device(name: str, processes: int) -> torch.device:
    """`MODEL.DEVICE` as the device of so many processes on this machine.

    Raises:
        UserError: the name is unknown, or the machine lacks the devices.
    """
    device = resolve_device(name)
    if name == "auto" and device.type == "cpu" and processes > 1:
        raise UserError(f"--num-gpus {processes} but there is no GPU; for CPU processes add MODEL.DEVICE cpu")
    _check_devices(device, processes)
    return device


def _check_devices(device: torch.device, processes: int) -> None:
    if processes < 1:
        raise UserError(f"--num-gpus is {processes}; give at least 1")
    if device.type == "cuda" and processes > torch.cuda.device_count():
        raise UserError(f"--num-gpus is {processes} but torch sees {torch.cuda.device_count()} GPUs; lower it")
    if device.type == "cuda" and device.index is not None and processes > 1:
        raise UserError(f"MODEL.DEVICE {device} names one GPU but --num-gpus is {processes}; use MODEL.DEVICE cuda")


def meeting_point(dist_url: str, machines: int, machine_rank: int) -> tuple[str, int]:
    """Address and port of machine 0, from the flags. Raises UserError where they make no sense."""
    if machines == 1:
        return "127.0.0.1", find_free_network_port()
    url = urlsplit(dist_url)
    if url.scheme != "tcp" or not url.hostname or not url.port:
        raise UserError(f"--dist-url is {dist_url!r}; {machines} machines need tcp://HOST:PORT of machine 0")
    if not 0 <= machine_rank < machines:
        raise UserError(f"--machine-rank is {machine_rank}; with --num-machines {machines} it is 0 to {machines - 1}")
    return url.hostname, url.port
