"""What `detectron2-sam fewshot` reports: results.json, report.html, the worst images, the command that comes next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from amsam.method import test_set
from amsam.report import class_table, picture_row, scores_table, worst
from amsam.structures import MaskRecord, name_of
from detectron2_sam.commands.fewshot.plan import TEST, Plan, Split
from detectron2_sam.commands.fewshot.runs import AMSAM, Runs
from detectron2_sam.commands.loss_curve import loss_curve
from detectron2_sam.commands.train.build import register_datasets
from sam_common.config import CfgNode
from sam_common.data import catalog
from sam_common.io.files import atomic_path
from sam_common.reporting.page import Cell, Part, PictureRow, Report, Section, Spread, Table

WORST = 10


def next_command(plan: Plan, of: Split) -> str:
    """Labels pictures with the adapter, told boxes as here where that can be."""
    adapter = str(plan.output / "adapter.safetensors")
    words = ["detectron2-sam", "predict", "--adapter", adapter, "--input", plan.images]
    if plan.boxes.lower().endswith(".json"):
        words += ["--boxes", plan.boxes]
    elif plan.boxes not in ("full_image", "ground_truth"):
        words += ["--detector", plan.boxes]
    if any("/" in name_of(record) for record in of.records):
        words.append("--recursive")
    return shlex.join([*words, "--output", str(plan.output / "predicted")])


@torch.no_grad()
def worst_rows(runs: Runs, model: torch.nn.Module, cfg: CfgNode, seed: int) -> list[PictureRow]:
    """The worst images of a seed, drawn, and written to `worst/`."""
    register_datasets(cfg)
    spec, scores = catalog.get(TEST), runs.scores(seed)
    records, mapper = test_set(cfg, spec)
    by_id = {name_of(record): record for record in records}
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
        pairs = {name: Spread.of([seed[name] for seed in found]) for name in found[0] if name != "n"}
        summary[words] = {name: {"mean": _finite(mean), "sd": _finite(sd)} for name, (mean, sd) in pairs.items()}
    seeds = [
        {
            "seed": seed,
            "shots": [name_of(record) for record in runs.of.shots[seed]],
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
        (str(Spread.of([m["Dice"] for m in found])), "Dice" if words == AMSAM else f"Dice of {words}")
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
        (
            "boxes",
            f"{plan.boxes}; none found in {Spread.of([m['no_box'] for m in answers[AMSAM]])} % of the tested images",
        ),
        ("configuration", " ".join([plan.config_file, *plan.options])),
        *((f"seed {seed} learned from", _names(shots)) for seed, shots in enumerate(of.shots)),
        ("masks that show nothing", ", ".join(of.empty) or "none"),
        ("adapter", str(plan.output / "adapter.safetensors")),
        ("to label pictures", next_command(plan, of)),
    ]
    tested = f"images {plan.pool + 1} to {len(of.records)}" if plan.pool else "all others"
    lead = f"{', '.join(classes)}: learned from {plan.shots} labelled images, tested on {tested}."
    how = f"Trained {len(validations)} times, each time from other images."
    return Report("Few-shot segmentation", lead, [Part(AMSAM, how, highlights, sections, notes)], facts)


def _names(records: Sequence[MaskRecord]) -> str:
    return ", ".join(name_of(record) for record in records)
