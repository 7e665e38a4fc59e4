"""PLUG's part of the demo: trained on scenes whose things hide each other, beside answers that need no training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detectron2_sam.commands.demo.run import (
    NUM_TEST,
    Demo,
    last_sections,
    print_answers,
    results_file,
    test_only,
    train_and_test,
)
from plug.report import METRICS, amodal_picture_rows, amodal_table
from sam_common.data import catalog
from sam_common.reporting.page import Part, Section
from sam_common.reporting.run_files import read_json

CONFIG = "plug_T"
TEST = "generated_test_amodal"
PLUG, MERGED = "PLUG", "PLUG, its visible mask merged in"
SAM = "SAM as it is, told the amodal box"
VISIBLE = "the true visible mask taken as the answer"


def demo_plug(demo: Demo) -> Part:
    """Trains and tests what is not trained and tested yet."""
    run = demo.output / "plug"
    own, of_sam = results_file(run, TEST), results_file(demo.output / "sam_amodal_box", TEST)
    train_and_test(demo, "PLUG", CONFIG, run / "model_final.pth", own, f"{NUM_TEST} scenes")
    announcement = "SAM as it is, told the boxes of the whole objects"
    test_only(demo, "SAM", announcement, CONFIG, of_sam, "MODEL.META_ARCHITECTURE", "VanillaSAM")
    results = read_json(own)["results"]
    answers = {
        PLUG: results["amodal"],
        MERGED: results["amodal_merged"],
        VISIBLE: results["visible_as_amodal"],
        SAM: read_json(of_sam)["results"]["amodal"],
    }
    print_answers("mIoU", METRICS, answers, width=16)
    return plug_part(run, answers, visible=results["visible"]["mIoU"])


def plug_part(run: Path, answers: Mapping[str, Mapping[str, float]], *, visible: float) -> Part:
    """The part of a trained and evaluated PLUG.

    Args:
        run: its OUTPUT_DIR.
        answers: the metrics of `PLUG`, `MERGED`, `VISIBLE` and `SAM`.
        visible: mIoU of its visible masks, per cent.
    """
    plug = answers[PLUG]
    rows = amodal_picture_rows(results_file(run, TEST).parent, catalog.get(TEST))
    text = (
        f"{plug['n']:.0f} objects; {plug['n_occ_strict']:.0f} have a hidden part (strict), or "
        f"{plug['n_occ_compat']:.0f} (compat). Each comes with a box: PLUG gets that of the part one sees, SAM that "
        f"of the whole object. PLUG's masks of what one sees: mIoU {visible:.1f}. Of the objects' pixels "
        f"{plug['beyond_crop']:.1f}% lie outside the crops that PLUG looks at, where it can say nothing."
    )
    sections = [
        Section("Whole objects and their hidden parts", [text], [amodal_table(answers, "Answers to the same objects")]),
        *last_sections(run, rows),
    ]
    highlights = [
        (f"{plug['mIoU_occ_strict']:.1f}", f"mIoU, hidden parts; SAM as it is: {answers[SAM]['mIoU_occ_strict']:.1f}"),
        (f"{plug['mIoU_full']:.1f}", f"mIoU, whole objects; SAM as it is: {answers[SAM]['mIoU_full']:.1f}"),
        (f"{answers[VISIBLE]['mIoU_full']:.1f}", "mIoU, whole objects, of the true visible part taken as the answer"),
    ]
    notes = [
        "Tinted inside a solid line is what is seen, hatched inside a dashed line is what is hidden.",
        "Many objects are hidden little or not at all, so the true visible part, taken as the answer, scores high on "
        "whole objects. It knows what no model is told, and says nothing of hidden parts.",
        "SAM's row is told how far the whole object reaches, which PLUG is not.",
        "Two readings of “has a hidden part”: strict, a pixel of it is hidden; compat, the amodal mask has more pixels "
        "than the visible one, as the published code of C2F-Seg counts.",
        "One seed, a model of minutes that has met generated pictures only.",
    ]
    lead = "Amodal segmentation: from an image and the box of an object's visible part to the whole object."
    return Part("PLUG", lead, highlights, sections, notes)
