"""From a folder of images and a folder of masks to an adapter and a report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tabulate import tabulate

from amsam.adapter import write_adapter
from amsam.config import adapter_settings
from amsam.evaluation import METRICS
from detectron2_sam.commands.fewshot.boxes import box_source
from detectron2_sam.commands.fewshot.plan import Plan, Split, check_output, default_config, remember, split
from detectron2_sam.commands.fewshot.report import make_report, next_command, numbers, worst_rows
from detectron2_sam.commands.fewshot.runs import AMSAM, Runs
from detectron2_sam.commands.output_folder import claimed
from detectron2_sam.methods import methods
from sam_common.config import CfgNode
from sam_common.errors import Interrupted
from sam_common.io.files import write_text
from sam_common.reporting.page import Spread, write_report
from sam_common.text import one_line, some


def main(args: argparse.Namespace) -> None:
    """Trains and tests every seed, and what needs no training, then writes the results.

    Raises:
        UserError: something that was given cannot be used.
        Interrupted: a signal came; the same command goes on.
    """
    plan = make_plan(args)
    base = plan.base()
    of = split(plan, args.seeds)
    check_output(plan, of)
    tell(plan, of, base)
    methods()
    with claimed(plan.output):
        remember(plan, of)  # before anything else is written, so that whatever is interrupted goes on
        runs = Runs(plan, of, box_source(plan.boxes, base, of.records, plan.output))
        try:
            for seed in range(args.seeds):
                runs.train(seed)
            for name in runs.baselines:
                runs.test(name)
        except Interrupted as stopped:
            raise Interrupted("stopped; the same command goes on from here", stopped.signum) from stopped
        finish(runs, args.seeds)


def tell(plan: Plan, of: Split, cfg: CfgNode) -> None:
    """Says what will be done, and above all with which SAM."""
    print(f"{len(of.records)} images, {plan.shots} shots drawn from {len(of.pool)}, boxes: {plan.boxes}")
    if of.empty:
        names = some(of.empty)
        print(one_line(f"masks of {len(of.empty)} images show nothing; they are tested on, never drawn: {names}"))
    size, weights = cfg.MODEL.SAM.SIZE, cfg.MODEL.SAM.WEIGHTS
    if weights == "embedded":
        print(
            "SAM: THE EMBEDDED TINY ONE, which has seen generated pictures only, never a photograph. For photographs"
            "\n     give --config amsam_B: SAM ViT-B, downloaded when it is first used"
        )
    else:
        print(f"SAM: ViT-{size}, {weights} ({plan.config_file})")


def finish(runs: Runs, seeds: int) -> None:
    """Writes the adapter, the pictures, the report and the numbers; prints the table."""
    plan, of, output = runs.plan, runs.of, runs.plan.output
    classes = [category.name for category in of.vocabulary]
    answers = runs.answers(seeds)
    validations = [runs.validation(seed) for seed in range(seeds)]
    best = max(range(seeds), key=lambda seed: validations[seed])
    model, cfg = runs.trained(best)
    write_adapter(output / "adapter.safetensors", model, settings=adapter_settings(cfg), classes=classes)
    rows = worst_rows(runs, model, cfg, best)
    write_text(output / "results.json", json.dumps(numbers(runs, answers, validations, best), indent=1))
    write_report(output / "report.html", make_report(runs, answers, validations, best, rows))
    columns = [
        [words, *(str(Spread.of([m[name] for m in found])) for name in METRICS)] for words, found in answers.items()
    ]
    print()
    print(tabulate(columns, ["", *METRICS], disable_numparse=True, colalign=("left", "right", "right", "right")))
    if len(classes) > 1:
        print("; ".join(f"{name} {Spread.of([m[f'Dice-{name}'] for m in answers[AMSAM]])}" for name in classes))
    print(f"{seeds} seeds; images without a box: {Spread.of([m['no_box'] for m in answers[AMSAM]])} %")
    print(f"{output}/report.html, {output}/results.json")
    print(f"best by validation: seed {best} → {output}/adapter.safetensors. Now, with your own pictures:")
    print(f"  {next_command(plan, of)}")
    if plan.boxes == "ground_truth":
        print("  (it learned with true boxes: tell it where to look with --box, --boxes or --detector)")


def make_plan(args: argparse.Namespace) -> Plan:
    """What the command line asks for; files by their absolute path, so that a run may be repeated from anywhere."""
    return Plan(
        images=_absolute(args.images),
        masks=_absolute(args.masks),
        classes=_absolute(args.classes) if args.classes else "",
        mask_suffix=args.mask_suffix,
        mask_threshold=args.mask_threshold,
        shots=args.shots,
        pool=args.pool,
        boxes=_absolute(args.boxes) if args.boxes.lower().endswith(".json") else args.boxes,
        config_file=args.config_file or default_config(),
        options=args.opts,
        output=Path(args.output),
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
