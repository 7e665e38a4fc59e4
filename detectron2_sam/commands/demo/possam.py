"""PosSAM's part of the demo: trained on the seen classes, tested on all, once with each way to classify a mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2_sam.commands.demo.run import (
    NUM_TEST,
    Demo,
    last_sections,
    results_file,
    test_only,
    train_and_test,
)
from possam.report import class_table, picture_rows, quality_table
from sam_common.data import catalog
from sam_common.evaluation.class_groups import GROUPS
from sam_common.evaluation.panoptic_quality import METRICS
from sam_common.reporting.page import Cell, Part, Section, Table
from sam_common.reporting.run_files import read_json

CONFIG = "possam_T"
TRAIN, TEST = "generated_train_panoptic", "generated_test_panoptic"
ENSEMBLES = {
    "mase": "MASE: both, weighted by their confidence, scaled by mask quality",
    "geometric": "both, with fixed weights (geometric ensemble)",
    "ldp": "the trained classifier alone",
    "clip": "the frozen CLIP alone",
}


def demo_possam(demo: Demo) -> Part:
    """Trains and tests what is not trained and tested yet."""
    run = demo.output / "possam"
    final = run / "model_final.pth"
    train_and_test(demo, "PosSAM", CONFIG, final, quality_file(run), f"{NUM_TEST} scenes")
    folders = {name: run if name == "mase" else demo.output / "ensembles" / name for name in ENSEMBLES}
    for name, folder in folders.items():
        announcement = f"the same weights, masks classified by {ENSEMBLES[name]}"
        options = ("MODEL.WEIGHTS", final, "MODEL.POSSAM.ENSEMBLE.NAME", name)
        test_only(demo, name, announcement, CONFIG, quality_file(folder), *options)
    qualities = {name: read_json(quality_file(folder)) for name, folder in folders.items()}
    print_table(qualities["mase"])
    return possam_part(run, qualities)


def possam_part(run: Path, qualities: Mapping[str, dict[str, Any]]) -> Part:
    """The part of a trained and evaluated PosSAM.

    Args:
        run: its OUTPUT_DIR.
        qualities: ensemble -> contents of its `panoptic_quality.json`; `mase` is the method.
    """
    quality = qualities["mase"]
    means = quality["means"]
    trained = catalog.get(TRAIN).load_vocabulary()
    rows = picture_rows(quality_file(run).parent, catalog.get(TEST), training_vocabulary=trained)
    tables = [
        quality_table(quality, "The trained model with MASE"),
        ensemble_table(qualities),
        class_table(quality),
    ]
    text = f"{quality['rules']['images']} test scenes. Unseen classes are words that no training mask was named with."
    sections = [Section("Panoptic quality", [text], tables), *last_sections(run, rows)]
    highlights = [
        (f"{means['PQ']:.1f}", f"PQ, all {means['n']:.0f} classes"),
        (f"{means['PQ_seen']:.1f}", f"PQ, the {means['n_seen']:.0f} seen classes"),
        (f"{means['PQ_unseen']:.1f}", f"PQ, the {means['n_unseen']:.0f} unseen classes"),
    ]
    notes = [
        "This tiny model has met generated pictures only. It shows that the method learns and how its parts compare, "
        "not what it would do on photographs.",
        "The frozen tiny CLIP was taught with the masks and words of the whole world, the unseen classes included, as "
        "a real CLIP has met most words. PosSAM's masks and classifier have not met the unseen ones.",
        "One seed. Differences of a few tenths between the ensembles are within the noise of a training.",
    ]
    lead = "Open-vocabulary panoptic segmentation: asked for words that no mask of its training was named with."
    return Part("PosSAM", lead, highlights, sections, notes)


def ensemble_table(qualities: Mapping[str, dict[str, Any]]) -> Table:
    """PQ of the same trained weights under each ensemble."""
    rows: list[list[Cell]] = [
        [ENSEMBLES[name], *(quality["means"].get(f"PQ{suffix}") for suffix in GROUPS.values())]
        for name, quality in qualities.items()
    ]
    header = ("a mask is classified by", *(f"PQ {group}" for group in GROUPS))
    return Table("The same weights with other ways to classify a mask", header, rows)


def quality_file(run: Path) -> Path:
    """Where an evaluation of the test scenes leaves its results."""
    return results_file(run, TEST, "panoptic_quality.json")


def print_table(quality: dict[str, Any]) -> None:
    table = quality_table(quality, "")
    print(f"\n{'classes':10}{''.join(f'{name:>8}' for name in METRICS)}{'n':>6}")
    for name, *values, number in table.rows:
        print(f"{name:10}{''.join(f'{value:8.1f}' for value in values)}{number:6}")
