"""Images a second, peak memory and the share of each stage, from pixels to masks of the image's size: JSON lines.

    python -m benchmarks.end_to_end                              # CPU, one thread, the tiny configurations
    python -m benchmarks.end_to_end --device cuda --save \\
        --configs possam_B possam_L possam_H plug_B_cocoa plug_L_cocoa plug_H_cocoa      # untested: no GPU was at hand

Each configuration runs at its real size in a process of its own, with random weights and random pixels, as an engine
evaluates it: one image at a time (of PLUG: --objects of one image), in the precision of its SOLVER.AMP, post-processing
included. The words are ADE20K's, their embeddings random, since they are computed once.

A run ends when the device has finished. The speed is that of the median run; the stages are then measured in runs of
their own, in which every stage waits for the device, so on a GPU nothing overlaps there. Memory is what the process has
at most, on a GPU what tensors take at most. --save writes the lines to benchmarks/results/.
"""

from __future__ import annotations

import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import plug.plug
from benchmarks.cases import Case, make_batch, predict
from benchmarks.memory import MIB, forget_peak, memory
from benchmarks.side_by_side import Parser, Stopwatch, apart, staged
from benchmarks.where_time_goes import possam_stages
from detectron2_sam.commands.cli import run_tool
from possam.deformable_attention.operator import kernel_in_use
from sam_common.config import resolve_device
from sam_common.io.files import write_text
from sam_common.method import build_model

RESULTS = Path(__file__).resolve().parent / "results"
TARGETS = {"possam_B": 80, "possam_L": 55, "possam_H": 35}
"""Images a second of PosSAM on an H200."""


def stages(model: Any) -> list[tuple[Any, str, str]]:
    """Object, method and name of the stages of a model's forward pass."""
    if not isinstance(model, plug.plug.PLUG):
        return possam_stages(model)
    return [
        (model, "crops", "crops"),
        (model.encoder, "forward", "SAM encoder, two branches"),
        *((decoder, "forward", "mask decoders") for decoder in model.decoders),
        (model.refine, "forward", "refinement"),
        (plug.plug, "uncrop", "masks back into the image"),
    ]


def measure(case: Case, runs: int) -> dict[str, Any]:
    """One configuration, in this process."""
    cfg, device, precision = case.begin()
    model = build_model(cfg).to(device).eval()
    batch = make_batch(cfg, model, case)
    watch = Stopwatch(finish=torch.cuda.synchronize) if device.type == "cuda" else Stopwatch()

    def run() -> None:
        with watch("whole"):
            predict(model, precision, batch)

    for _ in range(2):  # what happens once
        run()
    forget_peak(device)
    watch.taken.clear()
    for _ in range(runs):
        run()
    seconds = statistics.median(watch.taken["whole"])
    peak = memory(device, "VmHWM")
    return {
        "images_per_second": float(f"{1 / seconds:.4g}"),
        "milliseconds": float(f"{1e3 * seconds:.4g}"),
        "peak_mib": round(peak / MIB, 1),
        "stages": shares(model, run, watch, runs),
        "precision": str(precision.fast_dtype).removeprefix("torch."),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "deformable_attention": kernel_in_use(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
    }


def cpu_name() -> str:
    """What Linux calls it, elsewhere its kind."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def shares(model: nn.Module, run: Callable[[], None], watch: Stopwatch, runs: int) -> dict[str, float]:
    """Stage -> its part of the time; one whose name is indented is part of another."""
    for stage in stages(model):
        staged(*stage, span=watch)
    watch.taken.clear()
    for _ in range(runs):
        run()
    whole = sum(watch.taken.pop("whole"))
    found = {name: sum(seconds) / whole for name, seconds in watch.taken.items()}
    found["the rest"] = 1 - sum(share for name, share in found.items() if not name.startswith(" "))
    return {name: round(share, 3) for name, share in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a line for each configuration."""
    parser = Parser(__doc__, objects=4, runs=10, threads=1)
    parser.add_argument(
        "--configs", nargs="+", default=["possam_T", "plug_T"], metavar="NAME", help="files of configs/"
    )
    parser.add_argument("--device", default="cpu", help="cpu | cuda")
    parser.add_argument("--save", nargs="?", type=Path, const=RESULTS, metavar="FOLDER", help=f"({RESULTS.name})")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="after --: over every configuration")
    args = parser.parse(argv)
    resolve_device(args.device)
    command = shlex.join(["python", "-m", "benchmarks.end_to_end", *(sys.argv[1:] if argv is None else argv)])
    lines = []
    for config in args.configs:
        count = args.objects if config.startswith("plug") else 1
        case = Case(config, "inference", count, device=args.device, threads=args.threads, options=tuple(args.opts))
        measured = apart(measure, case, args.runs)
        facts = {"case": f"{config}, end to end", "count": count, "device": args.device, "threads": args.threads}
        goal = {"images_per_second_wanted": TARGETS[config]} if args.device == "cuda" and config in TARGETS else {}
        lines.append({**facts, **measured, **goal, "command": command})
        print(json.dumps(lines[-1]), flush=True)
    if args.save is not None:
        machine = "-".join("".join(c if c.isalnum() else " " for c in lines[0]["machine"]).lower().split())
        path = args.save / f"end_to_end-{machine}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
        write_text(path, json.dumps(lines, indent=1) + "\n")
        print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_tool(main))
