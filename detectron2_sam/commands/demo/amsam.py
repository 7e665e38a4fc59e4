"""AM-SAM's part of the demo: a few labelled pictures of what the tiny SAM never met, beside answers that need none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from amsam.config import build_amsam
from amsam.evaluation import METRICS, read_scores
from amsam.method import test_set
from amsam.report import picture_row, scores_table
from amsam.structures import name_of
from detectron2_sam.commands.demo.run import Demo, Shown, train_net
from detectron2_sam.commands.fewshot.runs import AMSAM, BASELINES
from detectron2_sam.commands.loss_curve import loss_curve
from detectron2_sam.methods import full_cfg
from sam_common.data import catalog
from sam_common.engine.checkpoint import frozen_sha256, load_trained, read_checkpoint
from sam_common.reporting.page import Part, PictureRow, Section
from sam_common.reporting.run_files import evenly, read_json

CONFIG = "amsam_T"
TEST = "generated_worms_test"
PICTURES = 10


def demo_amsam(demo: Demo) -> Shown:
    """Trains and tests what is not trained and tested yet."""
    run, iterations = demo.output / "amsam", demo.iterations(CONFIG)
    runs = {AMSAM: run} | {words: demo.output / name for name, words in BASELINES.items()}
    if results_file(run).is_file() and (run / "model_best.pth").is_file():
        print(f"\n== AM-SAM is trained and tested already: {run / 'model_best.pth'}", flush=True)
    else:
        with demo.phase(
            "training AM-SAM", f"training AM-SAM, {iterations:,} iterations, then testing it on 50 pictures"
        ):
            train_net(demo, CONFIG, run, "--resume", "SOLVER.MAX_ITER", iterations, processes=1)
    for name, words in BASELINES.items():
        if not results_file(runs[words]).is_file():
            with demo.phase(f"testing {name}", f"testing {words}"):
                train_net(demo, CONFIG, runs[words], "--eval-only", "MODEL.META_ARCHITECTURE", name)
    answers = {words: read_json(results_file(folder))["results"]["few_shot"] for words, folder in runs.items()}
    print_answers(answers)
    return amsam_part(run, answers)


def amsam_part(run: Path, answers: Mapping[str, Mapping[str, float]]) -> Shown:
    """The part of a trained and evaluated AM-SAM.

    Args:
        run: its OUTPUT_DIR.
        answers: the metrics of `AMSAM` and of the baselines.
    """
    rows = picture_rows(run)
    text = (
        f"{answers[AMSAM]['n']:.0f} pictures of luminous worms, which the tiny SAM never met. AM-SAM has seen "
        f"{full_cfg(CONFIG).DATASETS.SHOTS} others with their masks; half of them taught its weights, the other half "
        "its prompt and chose which weights to keep. All three are told the box of the truth."
    )
    table = scores_table({words: [means] for words, means in answers.items()}, "Answers to the same pictures")
    sections = [
        Section("How well it labels pictures it has not seen", [text], [table]),
        Section(f"{len(rows)} pictures", ["Spread evenly over the test pictures, none chosen by hand."], rows=rows),
        Section("Training", curves=[loss_curve(run / "metrics.json")]),
    ]
    highlights = [
        (f"{means['Dice']:.1f}", "Dice" if words == AMSAM else f"Dice of {words}") for words, means in answers.items()
    ]
    notes = [
        "The box tells much: filled, it is the third answer. What lies above that was seen in the picture.",
        "One draw of the shots, and few of them: with others the Dice differs by several points.",
    ]
    lead = "Few-shot segmentation: a few labelled pictures make a segmenter for what they show."
    return Shown(Part("AM-SAM", lead, highlights, sections, notes), rows)


@torch.inference_mode()
def picture_rows(run: Path) -> list[PictureRow]:
    """Input, truth and prediction of `PICTURES` images, spread evenly over the test set."""
    cfg = full_cfg(CONFIG)
    path, spec = run / "model_best.pth", catalog.get(TEST)
    model = build_amsam(cfg).eval()
    load_trained(model, read_checkpoint(path), str(path), frozen=frozen_sha256(model))
    scores = read_scores(results_file(run).with_name("dice_per_image.csv"))
    records, mapper = test_set(cfg, spec)
    rows = []
    for record in (records[index] for index in evenly(len(records), PICTURES)):
        item = mapper(record, 0)
        predicted = model([item])[0]["few_shot"].argmax(0)
        rows.append(picture_row(record, item["boxes"], predicted, spec.load_vocabulary(), scores[name_of(record)]))
    return rows


def results_file(run: Path) -> Path:
    """Where an evaluation of the test pictures leaves its results."""
    return run / "inference" / TEST / "results.json"


def print_answers(answers: Mapping[str, Mapping[str, float]]) -> None:
    width = max(map(len, answers))
    print(f"\n{'per cent':{width}}{''.join(f'{name:>10}' for name in METRICS)}")
    for words, means in answers.items():
        print(f"{words:{width}}{''.join(f'{means[name]:10.1f}' for name in METRICS)}")
