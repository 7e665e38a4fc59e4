#!/usr/bin/env python3
"""From a folder of images and a folder of masks to a segmenter, its numbers and its mistakes, in minutes.

    python tools/fewshot.py --images photos/images --masks photos/masks --shots 4 --seeds 5 --output out

For each seed AM-SAM learns from --shots images drawn at random and is tested on all others; with --pool N the first N
by name are drawn from, and the rest are tested on. Masks have the names of their images: 0 is the background, 255 or 1
the object, or with --classes FILE 1 is the class of its first line, 2 of its second, …

It prints the table, and the command that uses the result, and writes

    out/report.html           Dice, IoU and Dice_64, mean ± standard deviation over the seeds, beside SAM as it is and
                              the bare box; the ten worst images, drawn, which out/worst/ holds too
    out/results.json          the same numbers
    out/adapter.safetensors   the model of the seed whose validation, on half of its shots, was best
    out/seed0/ …              each run, as tools/train_net.py leaves it: inference/few_shot_test/dice_per_image.csv has
                              the numbers of each image; seed0.yaml runs it alone

Boxes tell the model where to look. --boxes full_image (the default) says nothing, ground_truth is the box of the mask:
an upper bound; FILE.json is a file of COCO results; any other word is a detector of sam_common/detectors.py.

Given again, the command goes on where it was interrupted, with the same numbers; more --seeds add to what is there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the modules of tools/, which is not installed

from amsam.adapter import write_adapter
from amsam.config import adapter_settings
from sam_common.config import CfgNode, build_model, resolve_device
from sam_common.data import catalog
from sam_common.engine import build_data
from sam_common.engine.build import register_datasets
from sam_common.engine.checkpoint import frozen_sha256, load_trained, read_checkpoint
from sam_common.engine.launch import Interrupted
from sam_common.errors import UserError
from sam_common.evaluation.dice import METRICS, Scores, means, read_scores
from sam_common.few_shot_report import class_table, mean_and_sd, picture_row, scores_table, shown, worst
from sam_common.files import atomic_path, write_text
from sam_common.report import Cell, Part, PictureRow, Report, Section, Table, write_report
from sam_common.run_report import loss_curve
from sam_common.tool import ToolParser, run_tool
from tools import train_net
from tools.few_shot.boxes import box_source
from tools.few_shot.plan import TEST, Plan, Split, check_output, default_config, remember, split
from tools.methods import register_all

AMSAM = "AM-SAM"
BASELINES = {"PromptedSAM": "SAM as it is, told the box", "BoxRectangle": "the box itself"}
WORST = 10


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the tool.

    Raises:
        UserError: something that was given cannot be used.
        Interrupted: a signal came; the same command goes on.
    """
    args = parse_arguments(argv)
    plan = make_plan(args)
    base = plan.base()
    of = split(plan, args.seeds)
    check_output(plan, of)
    tell(plan, of, base)
    register_all()
    runs = Runs(plan, of, box_source(plan.boxes, base, of.records, plan.output))
    remember(plan, of)
    try:
        for seed in range(args.seeds):
            runs.train(seed)
        if len(of.vocabulary) == 1:
            for name in BASELINES:
                runs.test(name)
    except Interrupted as stopped:
        raise Interrupted("stopped; the same command goes on from here", stopped.signum) from stopped
    finish(runs, args.seeds)


class Runs:
    """The runs of tools/train_net.py, each in a folder of its own; what is complete is not run again."""

    def __init__(self, plan: Plan, of: Split, source: str) -> None:
        self.plan, self.of, self.source = plan, of, source
        self.names = plan.output / "names"

    def cfg(self, seed: int) -> CfgNode:
        """Of the training with that seed."""
        return self._cfg(self.plan.output / f"seed{seed}", seed, self.names / f"test_seed{seed}.txt")

    def _cfg(self, run: Path, seed: int, test: Path) -> CfgNode:
        return self.plan.cfg(run, seed=seed, test=test, source=self.source, num_classes=len(self.of.vocabulary))

    def train(self, seed: int) -> None:
        """Trains and tests with one seed."""
        learned = ", ".join(record["image_id"] for record in self.of.shots[seed])
        tested = len(self.of.tested[seed])
        self._run(self.cfg(seed), f"seed {seed}: learning from {learned}; then testing on {tested} images")

    def test(self, name: str) -> None:
        """Tests what learns nothing, once on all images that any seed can be tested on."""
        cfg = self._cfg(self.plan.output / "baselines" / name, 0, self.names / "all.txt")
        cfg.MODEL.META_ARCHITECTURE = name
        self._run(cfg, f"testing {BASELINES[name]}", "--eval-only")

    def _run(self, cfg: CfgNode, announcement: str, mode: str = "--resume") -> None:
        run = Path(cfg.OUTPUT_DIR)
        if results_file(run).is_file():
            print(f"== {run} is complete", flush=True)
            return
        print(f"\n== {announcement}", flush=True)
        start = time.monotonic()
        file = run.with_suffix(".yaml")
        write_text(file, cfg.dump())
        with only_warnings():
            results = train_net.main(["--config-file", str(file), "--engine", "fabric", mode])
        dice = results[TEST]["few_shot"]["Dice"]
        print(f"   Dice {dice:.1f}, {time.monotonic() - start:.0f} s; {run}/log.txt", flush=True)

    def scores(self, seed: int) -> dict[str, Scores]:
        """Of each tested image."""
        return read_scores(results_file(self.plan.output / f"seed{seed}").with_name("dice_per_image.csv"))

    def answers(self, seeds: int) -> dict[str, list[dict[str, float]]]:
        """Words for an answer -> the means of each seed, over the same images."""
        classes = [category.name for category in self.of.vocabulary]
        found = {AMSAM: [means(self.scores(seed).values(), classes) for seed in range(seeds)]}
        for name, words in BASELINES.items():
            file = results_file(self.plan.output / "baselines" / name).with_name("dice_per_image.csv")
            if len(classes) == 1:
                scores = read_scores(file)
                found[words] = [means((scores[image] for image in ids), classes) for ids in self.of.tested[:seeds]]
        return found

    def validation(self, seed: int) -> float:
        """The Dice of the second half of its shots, by which the weights were chosen."""
        return read_checkpoint(self.best(seed))["metrics"]["best"]["value"]

    def best(self, seed: int) -> Path:
        return self.plan.output / f"seed{seed}" / "model_best.pth"


@contextlib.contextmanager
def only_warnings() -> Iterator[None]:
    """Of what a run logs, which its log.txt holds; progress bars are shown as ever."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("   warning: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.getLogger().removeHandler(handler)


def results_file(run: Path) -> Path:
    """Where an evaluation leaves its results, last of all."""
    return run / "inference" / TEST / "results.json"


def tell(plan: Plan, of: Split, cfg: CfgNode) -> None:
    """Says what will be done, and above all with which SAM."""
    print(f"{len(of.records)} images, {plan.shots} shots drawn from {len(of.pool)}, boxes: {plan.boxes}")
    if of.empty:
        print(f"masks of {len(of.empty)} images show nothing; they are tested on, never drawn: {', '.join(of.empty)}")
    size, weights = cfg.MODEL.SAM.SIZE, cfg.MODEL.SAM.WEIGHTS
    if weights == "embedded":
        print(
            "SAM: THE EMBEDDED TINY ONE, which has seen generated pictures only, never a photograph. For photographs"
            "\n     give --config-file configs/amsam_B.yaml: SAM ViT-B, downloaded when it is first used"
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
    model, cfg = trained(runs, best)
    write_adapter(output / "adapter.safetensors", model, settings=adapter_settings(cfg), classes=classes)
    rows = worst_rows(runs, model, cfg, best)
    write_text(output / "results.json", json.dumps(numbers(runs, answers, validations, best), indent=1))
    write_report(output / "report.html", make_report(runs, answers, validations, best, rows))
    columns = [[words, *(shown([m[name] for m in found]) for name in METRICS)] for words, found in answers.items()]
    print()
    print(tabulate(columns, ["", *METRICS], disable_numparse=True, colalign=("left", "right", "right", "right")))
    if len(classes) > 1:
        print("; ".join(f"{name} {shown([m[f'Dice-{name}'] for m in answers[AMSAM]])}" for name in classes))
    print(f"{seeds} seeds; images without a box: {shown([m['no_box'] for m in answers[AMSAM]])} %")
    print(f"{output}/report.html, {output}/results.json")
    print(f"best by validation: seed {best} → {output}/adapter.safetensors. Now, with your own pictures:")
    print(f"  {next_command(plan)}")
    if plan.boxes == "ground_truth":
        print("  (it learned with true boxes: tell it where to look with --box, --boxes or --detector)")


def next_command(plan: Plan) -> str:
    """Labels pictures with the adapter, told boxes as here where that can be."""
    words = [
        "python",
        "tools/predict.py",
        "--adapter",
        str(plan.output / "adapter.safetensors"),
        "--input",
        plan.images,
    ]
    if plan.boxes.lower().endswith(".json"):
        words += ["--boxes", plan.boxes]
    elif plan.boxes not in ("full_image", "ground_truth"):
        words += ["--detector", plan.boxes]
    return shlex.join([*words, "--output", str(plan.output / "predicted")])


def trained(runs: Runs, seed: int) -> tuple[torch.nn.Module, CfgNode]:
    """The model of a seed with the weights that its validation chose, ready to predict."""
    cfg, path = runs.cfg(seed), runs.best(seed)
    model = build_model(cfg)
    load_trained(model, read_checkpoint(path), str(path), frozen=frozen_sha256(model))
    return model.to(resolve_device(cfg.MODEL.DEVICE)).eval(), cfg


@torch.no_grad()
def worst_rows(runs: Runs, model: torch.nn.Module, cfg: CfgNode, seed: int) -> list[PictureRow]:
    """The worst images of a seed, drawn, and written to `worst/`."""
    register_datasets(cfg)
    spec, scores = catalog.get(TEST), runs.scores(seed)
    records, mapper = build_data.test_set(cfg, spec)
    by_id = {record["image_id"]: record for record in records}
    rows = []
    for place, name in enumerate(worst(scores, WORST), start=1):
        item = mapper(by_id[name], 0)
        predicted = model([item])[0]["few_shot"].argmax(0).cpu()
        rows.append(picture_row(by_id[name], item["boxes"], predicted, runs.of.vocabulary, scores[name]))
        for picture in rows[-1].pictures:
            file = runs.plan.output / "worst" / f"{place:02d}_{picture.title.split()[0].lower()}.jpg"
            with atomic_path(file) as temporary:
                Image.fromarray(picture.pixels).save(temporary, quality=90)
    return rows


def numbers(
    runs: Runs, answers: dict[str, list[dict[str, float]]], validations: Sequence[float], best: int
) -> dict[str, Any]:
    """What results.json holds; a number that cannot be is null."""
    summary = {}
    for words, found in answers.items():
        pairs = {name: mean_and_sd([seed[name] for seed in found]) for name in found[0] if name != "n"}
        summary[words] = {name: {"mean": _finite(mean), "sd": _finite(sd)} for name, (mean, sd) in pairs.items()}
    seeds = [
        {
            "seed": seed,
            "shots": [record["image_id"] for record in runs.of.shots[seed]],
            "validation_dice": validations[seed],
            "test": {words: {k: _finite(v) for k, v in found[seed].items()} for words, found in answers.items()},
        }
        for seed in range(len(validations))
    ]
    return {"over_seeds": summary, "seeds": seeds, "best_by_validation": best, "adapter": "adapter.safetensors"}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def make_report(
    runs: Runs,
    answers: dict[str, list[dict[str, float]]],
    validations: Sequence[float],
    best: int,
    rows: Sequence[PictureRow],
) -> Report:
    """The report of all seeds."""
    plan, of, cfg = runs.plan, runs.of, runs.cfg(best)
    classes = [category.name for category in of.vocabulary]
    tables = [scores_table(answers, f"Mean ± standard deviation over {len(validations)} seeds")]
    if len(classes) > 1:
        tables.append(class_table(answers[AMSAM], classes))
    each: list[list[Cell]] = [
        [str(seed), m["Dice"], validations[seed], m["IoU"], m["Dice_64"], int(m["n"])]
        for seed, m in enumerate(answers[AMSAM])
    ]
    header = ("seed", "Dice", "Dice of the validation", "IoU", "Dice_64", "tested images")
    note = "The validation is the second half of the shots: few images, so its Dice is a rough one."
    tables.append(Table("Each seed", header, each, note=note, bars=(1,)))
    embedded = cfg.MODEL.SAM.WEIGHTS == "embedded"
    notes = [
        "Each seed draws its own shots, so the standard deviation tells how much the choice of images matters.",
        f"Yellow is the box that tells the model where to look (--boxes {plan.boxes}).",
        *(["All seeds are tested on the same images, so what learns nothing does not vary."] if plan.pool else []),
        *(["The true box is told: a detector would do worse."] if plan.boxes == "ground_truth" else []),
        *(["The tiny SAM has seen generated pictures only; on photographs it is weak."] if embedded else []),
        *(["SAM as it is and the bare box know one class, so they are not compared here."] if len(classes) > 1 else []),
    ]
    highlights = [
        (shown([m["Dice"] for m in found]), "Dice" if words == AMSAM else f"Dice of {words}")
        for words, found in answers.items()
    ]
    worst_text = f"Of seed {best}, whose model is the adapter. Nobody chose them but their Dice."
    sections = [
        Section("How well it labels images it has not seen", tables=tables),
        Section(f"The {len(rows)} worst images", [worst_text], rows=rows),
        Section(f"Training of seed {best}", curves=[loss_curve(plan.output / f"seed{best}" / "metrics.json")]),
    ]
    facts = [
        ("images", f"{plan.images}: {len(of.records)}, shots drawn from {len(of.pool)}"),
        ("SAM", f"ViT-{cfg.MODEL.SAM.SIZE}, {cfg.MODEL.SAM.WEIGHTS}"),
        ("boxes", f"{plan.boxes}; none found in {shown([m['no_box'] for m in answers[AMSAM]])} % of the tested images"),
        ("configuration", " ".join([plan.config_file, *plan.options])),
        *((f"seed {seed} learned from", _names(shots)) for seed, shots in enumerate(of.shots)),
        ("masks that show nothing", ", ".join(of.empty) or "none"),
        ("adapter", str(plan.output / "adapter.safetensors")),
        ("to label pictures", next_command(plan)),
    ]
    tested = f"images {plan.pool + 1} to {len(of.records)}" if plan.pool else "all others"
    lead = f"{', '.join(classes)}: learned from {plan.shots} labelled images, tested on {tested}."
    how = f"Trained {len(validations)} times, each time from other images."
    return Report("Few-shot segmentation", lead, [Part(AMSAM, how, highlights, sections, notes)], facts)


def _names(records: Sequence[dict[str, Any]]) -> str:
    return ", ".join(record["image_id"] for record in records)


def make_plan(args: argparse.Namespace) -> Plan:
    """What the command line asks for; files by their absolute path, so that a run may be repeated from anywhere."""
    return Plan(
        images=_absolute(args.images),
        masks=_absolute(args.masks),
        classes=_absolute(args.classes) if args.classes else "",
        mask_suffix=args.mask_suffix,
        shots=args.shots,
        pool=args.pool,
        boxes=_absolute(args.boxes) if args.boxes.lower().endswith(".json") else args.boxes,
        config_file=args.config_file or default_config(),
        options=args.opts,
        output=Path(args.output),
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, metavar="DIR")
    parser.add_argument("--masks", required=True, metavar="DIR", help="of the same names; extensions are free")
    parser.add_argument("--output", required=True, metavar="DIR", help="new, or of the same command before")
    parser.add_argument("--shots", type=int, default=4, help="labelled images to learn from, half of them validate (4)")
    parser.add_argument("--seeds", type=int, default=5, help="how often, each with other shots (5)")
    parser.add_argument(
        "--pool", type=int, default=0, metavar="N", help="draw from the first N by name, test on the rest"
    )
    parser.add_argument("--classes", metavar="FILE", help="a name a line; the first is 1 in the masks, 255 is unknown")
    parser.add_argument("--mask-suffix", default="", help="of a_mask.png for a.jpg: _mask")
    parser.add_argument("--boxes", default="full_image", metavar="SOURCE", help="see above (full_image)")
    parser.add_argument(
        "--config-file", help="(configs/amsam_B.yaml where SAM ViT-B is here already, else the tiny SAM)"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_intermixed_args(argv)
    for name, least in (("seeds", 1), ("pool", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} is {getattr(args, name)}; give at least {least}")
    return args


if __name__ == "__main__":
    sys.exit(run_tool(main))
