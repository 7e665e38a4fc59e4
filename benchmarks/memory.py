"""Peak memory of a training step and of an inference, for every shipped configuration at its real size: JSON lines.

    python -m benchmarks.memory                                   # all of them, on the CPU, small ones first
    python -m benchmarks.memory --configs possam_B plug_B_kins --output memory.jsonl
    python -m benchmarks.memory --device cuda                     # was never run on a GPU

Each case is a process of its own, one at a time: a model with random weights, random pixels at the size that the
configuration asks for, one step or one prediction. `peak` is the most that the process had in memory (Linux: VmHWM), on
a GPU the most that tensors took there (`torch.cuda.max_memory_allocated`). In MiB it is the sum of

    program       the interpreter and its libraries, before the model is built; 0 on a GPU
    weights, gradients, optimizer       bytes of these tensors, counted
    activations   the rest: what waits for the backward pass, and what operators need for themselves

Gradients are there from the beginning, as in every part of an accumulated batch but the first. What one more image (of
PLUG: object) takes follows from the counts 1 and 2. The words are ADE20K's, their embeddings random: they are computed
once, before the first step. Official weights take the size of their file more while they are loaded.

Configurations that differ in their data alone are measured once; `also` names the others. On the CPU a case is given no
more memory than --limit; one that needs more is a line that says so. With --output, lines are added to a file, and what
the file holds already is not measured again.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import resource
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.cases import CONFIGS, Case, make_batch, predict, read_config
from benchmarks.side_by_side import Parser, apart
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.methods import methods
from sam_common.config import CfgNode, resolve_device
from sam_common.engine.build import build_backward, build_optimizer
from sam_common.engine.trainer import UNUSED
from sam_common.errors import UserError
from sam_common.method import build_model

Step = Callable[[list[dict[str, Any]]], None]
MIB = 2**20
SPARE = 2**30  # bytes that a case leaves to the rest of the machine
COUNTS: dict[str, dict[str, tuple[int, ...]]] = {
    "PosSAM": {"training": (1, 2), "inference": (1,)},  # images; engines test one at a time
    "PLUG": {"training": (1, 2), "inference": (1, 2)},  # objects of an image
    "AMSAM": {"training": (1,), "inference": (1,)},  # images of each half of the shots, as it always trains
}
"""Method -> mode -> how many go through the model at once."""
MODES = ("training", "inference")
PARTS = ("program", "weights", "gradients", "optimizer", "activations", "peak")
WAYS = ("training", "checkpointing", "inference")
PR_SET_PDEATHSIG = 1  # of Linux's prctl
NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc")
"""What errors say then; their types differ."""


def measure(case: Case, limit: float) -> dict[str, Any]:
    """The memory of a case in this process, which has done nothing before.

    Args:
        limit: bytes that this process may have on a CPU.
    """
    if resolve_device(case.device).type == "cpu":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # does not outlive the process that asked for it
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    cfg, device, precision = case.begin()
    program = memory(device, "VmRSS")
    model = build_model(cfg).to(device).train(case.mode == "training")
    batch = make_batch(cfg, model, case)
    step: Step = partial(predict, model, precision)
    moments: list[Tensor] = []
    if model.training:
        optimizer = build_optimizer(cfg, model)
        step = begin_training(cfg, model, optimizer, precision)
        moments = [moment for state in optimizer.state.values() for moment in state.values()]
    parts = {
        "program": program,
        "weights": nbytes((*model.parameters(), *model.buffers())),
        "gradients": nbytes(p.grad for p in model.parameters() if p.grad is not None),
        "optimizer": nbytes(moments),
    }
    forget_peak(device)
    step(batch)
    peak = memory(device, "VmHWM")
    parts |= {"activations": peak - sum(parts.values()), "peak": peak}
    facts = {"precision": str(precision.fast_dtype).removeprefix("torch."), "torch": torch.__version__}
    return {**{name: round(value / MIB, 1) for name, value in parts.items()}, **facts}


def begin_training(cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer, precision: torch.autocast) -> Step:
    """One iteration, as an engine does it; the gradients of an earlier part and the optimizer's moments are there."""
    device = resolve_device(cfg.MODEL.DEVICE)
    backward = build_backward(cfg, model, optimizer, device=device, world_size=1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name not in getattr(model, UNUSED, ()):
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    def step(batch: list[dict[str, Any]]) -> None:
        if backward is not None:
            backward(batch)
        else:
            with precision:
                losses = model(batch)
            torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def nbytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def memory(device: torch.device, field: str) -> int:
    """Bytes that this process has (`VmRSS`) or had at most (`VmHWM`); those of tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) if field == "VmRSS" else torch.cuda.max_memory_allocated(device)
    return kibibytes("/proc/self/status", field) * 2**10


def forget_peak(device: torch.device) -> None:
    """From here on a new peak is kept; what the building of the model has freed goes back to the system first."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def kibibytes(file: str, field: str) -> int:
    """A number of one of the system's tables.

    Raises:
        UserError: there is no such table.
    """
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        raise UserError(f"memory of a CPU is read from {file}, which only Linux has; give --device cuda") from None
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def outcome(case: Case, limit: float) -> dict[str, Any]:
    """What a process of its own measured, or the `problem` that there is not enough memory."""
    try:
        return apart(measure, case, limit)
    except BrokenProcessPool:
        return {"problem": "the process was ended: out of memory?"}
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        return {"problem": "does not fit into " + (f"{limit / MIB:.0f} MiB" if case.device == "cpu" else "the GPU")}


def twins(names: Iterable[str]) -> dict[str, list[str]]:
    """Of the configurations that need the same memory the first one -> the others; small models first.

    They have the same model, input and precision: some differ in the data and the length of the training alone.
    """
    methods()
    found: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(names, key=lambda name: ("TBLH".index(read_config(name).MODEL.SAM.SIZE), name)):
        cfg = read_config(name)
        found.setdefault((cfg.MODEL.dump(), cfg.INPUT.dump(), cfg.SOLVER.AMP.dump()), []).append(name)
    return {first: others for first, *others in found.values()}


def cases(args: argparse.Namespace, names: Iterable[str]) -> Iterator[Case]:
    """Every case that was asked for of these configurations."""
    for name in names:
        method = read_config(name).MODEL.META_ARCHITECTURE
        for mode in args.modes:
            counts = COUNTS[method][mode] if args.counts is None or method == "AMSAM" else args.counts
            for checkpointing in (False, True) if mode == "training" and method != "AMSAM" else (False,):
                for count in counts:
                    yield Case(name, mode, count, checkpointing, args.device, args.threads, tuple(args.opts))


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A row for each configuration, in GiB: what is there before a step, then the activations of each way to use it.

    Where two counts were measured, ` + ` says what each further image or object takes. A peak is the sum and `program`.
    """
    before = ("weights", "gradients", "optimizer")
    rows: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for line in lines:
        ways = rows.setdefault((", ".join([line["config"], *line["also"]]), line["precision"]), defaultdict(list))
        ways["checkpointing" if line["checkpointing"] else line["mode"]].append(line)
    cells = []
    for names, ways in rows.items():
        parts = (max(line[part] for measured in ways.values() for line in measured) for part in before)
        cells.append([*names, *map(gibibytes, parts), *(activations(ways[way]) for way in WAYS)])
    return tabulate(cells, ["GiB", "precision", *before, *WAYS], tablefmt="github", disable_numparse=True)


def activations(measured: Sequence[dict[str, Any]]) -> str:
    """Of the first count, and what each further one takes."""
    if not measured:
        return ""
    first, last = measured[0], measured[-1]
    if last is first:
        return gibibytes(first["activations"])
    more = (last["activations"] - first["activations"]) / (last["count"] - first["count"])
    return f"{gibibytes(first['activations'])} + {gibibytes(more)}"


def gibibytes(mebibytes: float) -> str:
    return f"{mebibytes / 2**10:.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a JSON line for each case, then one table of all."""
    every = sorted(path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.endswith("_base"))
    parser = Parser(__doc__, threads=1)
    parser.add_argument("--configs", nargs="+", default=every, choices=every, metavar="NAME", help="files of configs/")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--counts", nargs="+", type=int, help="images or objects at once, ascending (1 2)")
    parser.add_argument("--device", default="cpu", help="cpu | cuda")
    parser.add_argument("--limit", type=float, help="GiB that a case may have on the CPU (what is free, less 1)")
    parser.add_argument("--output", type=Path, help="a file of lines, which grows")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="after --: over every configuration")
    args = parser.parse(argv)
    done = args.output.read_text().splitlines() if args.output is not None and args.output.is_file() else []
    known = {key(line): line for line in map(json.loads, done)}
    lines: list[dict[str, Any]] = []
    also = twins(args.configs)
    progress = tqdm(list(cases(args, also)), unit="case")
    for case in progress:
        progress.set_description(f"{case.config}, {case.mode}, {case.count}")
        line = known.get(key(asdict(case))) or asdict(case) | outcome(case, room(args))
        line |= {"also": also[case.config]}
        print(json.dumps(line), flush=True)
        if "problem" in line:
            continue
        lines.append(line)
        if args.output is not None and key(line) not in known:
            with args.output.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(table(lines))


def room(args: argparse.Namespace) -> float:
    """Bytes that the next case may have: what was asked for, or what the machine has left."""
    if args.device != "cpu":
        return math.inf
    return args.limit * 2**30 if args.limit else kibibytes("/proc/meminfo", "MemAvailable") * 2**10 - SPARE


def key(line: dict[str, Any]) -> str:
    """What was asked for in a line."""
    return json.dumps([line[field.name] for field in fields(Case)])


if __name__ == "__main__":
    sys.exit(run_tool(main))
