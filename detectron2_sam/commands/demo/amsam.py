"""AM-SAM's part of the demo: a few labelled pictures of what the tiny SAM never met, beside answers that need none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from amsam.evaluation import METRICS, read_scores
from amsam.method import test_set
from amsam.predictor import Predictor
from amsam.report import picture_row, scores_table
from amsam.structures import name_of
from detectron2_sam.commands.demo.run import Demo, last_sections, print_answers, results_file, test_only, train_and_test
from detectron2_sam.commands.fewshot.runs import AMSAM, BASELINES
from detectron2_sam.methods import full_cfg
from sam_common.data import catalog
from sam_common.reporting.page import Part, PictureRow, Section
from sam_common.reporting.run_files import evenly, read_json

CONFIG = "amsam_T"
TEST = "generated_worms_test"
PICTURES = 10


def demo_amsam(demo: Demo) -> Part:
    """Trains and tests what is not trained and tested yet."""
    run = demo.output / "amsam"
    results = {AMSAM: results_file(run, TEST)}
    train_and_test(demo, "AM-SAM", CONFIG, run / "model_best.pth", results[AMSAM], "50 pictures", processes=1)
    for name, words in BASELINES.items():
        results[words] = results_file(demo.output / name, TEST)
        test_only(demo, name, words, CONFIG, results[words], "MODEL.META_ARCHITECTURE", name)
    answers = {words: read_json(file)["results"]["few_shot"] for words, file in results.items()}
    print_answers("per cent", dict(zip(METRICS, METRICS, strict=True)), answers, width=10)
    return amsam_part(run, answers)


def amsam_part(run: Path, answers: Mapping[str, Mapping[str, float]]) -> Part:
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
        *last_sections(run, rows, of="pictures"),
    ]
    highlights = [
        (f"{means['Dice']:.1f}", "Dice" if words == AMSAM else f"Dice of {words}") for words, means in answers.items()
    ]
    notes = [
        "The box tells much: filled, it is the third answer. What lies above that was seen in the picture.",
        "One draw of the shots, and few of them: with others the Dice differs by several points.",
    ]
    lead = "Few-shot segmentation: a few labelled pictures make a segmenter for what they show."
    return Part("AM-SAM", lead, highlights, sections, notes)


@torch.inference_mode()
def picture_rows(run: Path) -> list[PictureRow]:
    """Input, truth and prediction of `PICTURES` images, spread evenly over the test set."""
    spec, on_cpu = catalog.get(TEST), ("MODEL.DEVICE", "cpu")
    model = Predictor.from_config(CONFIG, weights=run / "model_best.pth", options=on_cpu).model
    scores = read_scores(results_file(run, TEST, "dice_per_image.csv"))
    records, mapper = test_set(full_cfg(CONFIG), spec)
    rows = []
    for record in (records[index] for index in evenly(len(records), PICTURES)):
        item = mapper(record, 0)
        predicted = model([item])[0]["few_shot"].argmax(0)
        rows.append(picture_row(record, item["boxes"], predicted, spec.load_vocabulary(), scores[name_of(record)]))
    return rows
