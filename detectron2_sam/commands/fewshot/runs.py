"""The runs of `detectron2-sam fewshot`: one training for every seed, and what needs no training, once."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from amsam.evaluation import Scores, means, read_scores
from amsam.predictor import Predictor
from amsam.structures import name_of
from detectron2_sam.commands import train
from detectron2_sam.commands.fewshot.plan import TEST, Plan, Split
from sam_common.config import CfgNode
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.io.files import write_text
from sam_common.text import LineFormatter

AMSAM = "AM-SAM"
BASELINES = {"PromptedSAM": "SAM as it is, told the box", "BoxRectangle": "the box itself"}


class Runs:
    """Runs of `detectron2-sam train`, each in a folder of its own; what is complete is not run again."""

    def __init__(self, plan: Plan, of: Split, source: str) -> None:
        self.plan, self.of, self.source = plan, of, source
        self.names = plan.output / "names"
        fits = len(of.vocabulary) == 1 and plan.base().INPUT.BOXES.SELECT != "none"  # they know one class and boxes
        self.baselines = BASELINES if fits else {}

    def cfg(self, seed: int) -> CfgNode:
        """Of the training with that seed."""
        return self._cfg(self.plan.output / f"seed{seed}", seed, self.names / f"test_seed{seed}.txt")

    def _cfg(self, run: Path, seed: int, test: Path) -> CfgNode:
        return self.plan.cfg(run, seed=seed, test=test, source=self.source, num_classes=len(self.of.vocabulary))

    def train(self, seed: int) -> None:
        """Trains and tests with one seed."""
        learned = ", ".join(name_of(record) for record in self.of.shots[seed])
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
            results = train.main(["--config-file", str(file), "--engine", "fabric", mode])
        dice = results[TEST]["few_shot"]["Dice"]
        print(f"   Dice {dice:.1f}, {time.monotonic() - start:.0f} s; {run}/log.txt", flush=True)

    def scores(self, seed: int) -> dict[str, Scores]:
        """Of each tested image."""
        return read_scores(results_file(self.plan.output / f"seed{seed}").with_name("dice_per_image.csv"))

    def answers(self, seeds: int) -> dict[str, list[dict[str, float]]]:
        """Words for an answer -> the means of each seed, over the same images."""
        classes = [category.name for category in self.of.vocabulary]
        found = {AMSAM: [means(self.scores(seed).values(), classes) for seed in range(seeds)]}
        for name, words in self.baselines.items():
            scores = read_scores(results_file(self.plan.output / "baselines" / name).with_name("dice_per_image.csv"))
            found[words] = [means((scores[image] for image in ids), classes) for ids in self.of.tested[:seeds]]
        return found

    def validation(self, seed: int) -> float:
        """The Dice of the second half of its shots, by which the weights were chosen."""
        return read_checkpoint(self.best(seed))["metrics"]["best"]["value"]

    def best(self, seed: int) -> Path:
        return self.plan.output / f"seed{seed}" / "model_best.pth"

    def trained(self, seed: int) -> tuple[torch.nn.Module, CfgNode]:
        """The model of a seed with the weights that its validation chose, ready to predict; and its cfg."""
        cfg = self.cfg(seed)
        return Predictor.from_config(cfg, weights=self.best(seed)).model, cfg


def results_file(run: Path) -> Path:
    """Where an evaluation leaves its results, last of all."""
    return run / "inference" / TEST / "results.json"


@contextlib.contextmanager
def only_warnings() -> Iterator[None]:
    """Of what a run logs, which its log.txt holds; progress bars are shown as ever."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(LineFormatter("   warning: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.getLogger().removeHandler(handler)
