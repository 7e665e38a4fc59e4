"""Where a training step and an evaluation of PosSAM spend their CPU time, by stage and by operator (torch.profiler).

detectron2-sam prepare generated
python -m benchmarks.where_time_goes                     # possam_T, one thread, 3 steps and 6 images
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.side_by_side import Parser, staged
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.commands.train.build import build_batches, register_datasets
from detectron2_sam.methods import full_cfg, methods
from possam.config import build_possam
from possam.possam import PosSAM
from sam_common.config import CfgNode
from sam_common.data import catalog
from sam_common.data.loader import build_test_loader
from sam_common.engine.build import build_optimizer
from sam_common.engine.build_data import test_set
from sam_common.engine.build_evaluation import make_evaluators
from sam_common.evaluation.evaluator import Evaluator

STAGE = "stage: "


def in_profile(name: str) -> AbstractContextManager[Any]:
    """Names a span of time for the profiler."""
    return record_function(STAGE + name)


def possam_stages(model: PosSAM) -> list[tuple[Any, str, str]]:
    """Object, method and name of the stages of a forward pass; an indented one is part of the next."""
    return [
        (model.backbone, "forward", "SAM encoder and pyramid"),
        (model.clip, "features", "CLIP encoder"),
        (model.head.pixel_decoder, "forward", "  pixel decoder, in the head"),
        (model.head, "forward", "head"),
        (model, "postprocess", "post-processing"),
    ]


def train(model: PosSAM, cfg: CfgNode, steps: int) -> None:
    """A few iterations, the data included."""
    model.train()
    optimizer = build_optimizer(cfg, model)
    batches = iter(build_batches(cfg, rank=0, world_size=1)(0))
    for _ in range(steps):
        with in_profile("data"):
            batch = next(batches)
        losses = model(batch)
        with in_profile("backward"):
            sum(losses.values()).backward()  # type: ignore[union-attr]
        with in_profile("optimizer"):
            optimizer.step()
            optimizer.zero_grad()


@torch.no_grad()
def evaluate(model: PosSAM, cfg: CfgNode, images: int, evaluators: list[Evaluator]) -> None:
    """A few images through the model and the evaluators that look at what it makes."""
    model.eval()
    records, mapper = test_set(cfg, catalog.get(cfg.DATASETS.TEST[0]))
    batches = iter(build_test_loader(records[:images], mapper))
    for _ in range(images):
        with in_profile("data"):
            batch = next(batches)
        outputs = model(batch)
        for evaluator in evaluators:
            if evaluator.judges[0] in outputs[0]:  # type: ignore[index]
                with in_profile(type(evaluator).__name__):
                    evaluator.process(batch, outputs)  # type: ignore[arg-type]


def show(title: str, run: Callable[[], None], rows: int) -> None:
    """Two tables: the stages, and the operators by the time in themselves, as shares of the whole."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
    events = profiled.key_averages()
    operators = [event for event in events if not event.key.startswith(STAGE)]
    whole = sum(event.self_cpu_time_total for event in events)
    stages = sorted((e for e in events if e.key.startswith(STAGE)), key=lambda e: -e.cpu_time_total)
    table = [[e.key.removeprefix(STAGE), f"{100 * e.cpu_time_total / whole:.1f} %"] for e in stages]
    print(f"\n{title}: {whole / 1e6:.2f} s", tabulate(table, ["stage", "of the time"], tablefmt="github"), sep="\n")
    most = sorted(operators, key=lambda e: -e.self_cpu_time_total)[:rows]
    table = [[e.key, f"{100 * e.self_cpu_time_total / whole:.1f} %", e.count] for e in most]
    print(tabulate(table, ["operator", "in itself", "calls"], tablefmt="github"))


def main() -> None:
    """Prints the tables of both."""
    parser = Parser(__doc__, steps=3, images=6, rows=12, threads=1)
    parser.add_argument("--config-file", default="configs/possam_T.yaml")
    args = parser.parse()
    methods()
    cfg = full_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu"])
    register_datasets(cfg)
    torch.manual_seed(0)
    model = build_possam(cfg)
    for stage in (*possam_stages(model), (model.criterion, "forward", "criterion")):
        staged(*stage, span=in_profile)
    train(model, cfg, 1)  # what happens once
    steps = f"{args.steps} steps of {cfg.SOLVER.IMS_PER_BATCH} images"
    show(f"training, {steps}", lambda: train(model, cfg, args.steps), args.rows)
    spec = catalog.get(cfg.DATASETS.TEST[0])
    with tempfile.TemporaryDirectory() as folder:
        evaluators = make_evaluators(spec, Path(folder), spec.load_vocabulary())
        evaluate(model, cfg, 1, evaluators)
        show(f"evaluation, {args.images} images", lambda: evaluate(model, cfg, args.images, evaluators), args.rows)


if __name__ == "__main__":
    sys.exit(run_tool(main))
