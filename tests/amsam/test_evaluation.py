"""Dice and IoU, by hand and against the plainest formulation."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.data.image_masks import image_masks_spec
from amsam.evaluation import (
    METRICS,
    DiceEvaluator,
    class_overlaps,
    dice,
    iou,
    mean_dice,
    means,
    read_scores,
    small_overlaps,
)
from sam_common.errors import UserError


def test_by_hand() -> None:
    """2 of 3 predicted pixels are right, 1 true one is missed: Dice 4/6, IoU 2/4; unknown pixels do not count."""
    predicted, truth = torch.tensor([[1, 1, 1, 0, 1]]), torch.tensor([[1, 1, 0, 1, -1]])
    overlaps = class_overlaps(predicted, truth, 1)
    assert overlaps.tolist() == [[3, 3, 2]]
    assert dice(overlaps).item() == pytest.approx(4 / 6) and iou(overlaps).item() == pytest.approx(2 / 4)


@pytest.mark.parametrize(("predicted", "truth", "value"), [(0, 0, math.nan), (1, 0, 0.0), (0, 1, 0.0), (1, 1, 1.0)])
def test_empty_classes(predicted: int, truth: int, value: float) -> None:
    """In neither: says nothing. In one of the two: 0. In both, everywhere: 1."""
    overlaps = class_overlaps(torch.full((2, 2), predicted), torch.full((2, 2), truth), 1)
    for measure in (dice, iou):
        assert measure(overlaps).item() == pytest.approx(value, nan_ok=True)


def test_against_sets_of_pixels() -> None:
    """Three classes on random labels: the definition with Python sets."""
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (torch.randint(0, 4, (20, 30), generator=generator) for _ in range(2))
    measured = dice(class_overlaps(predicted, truth, 3)).tolist()
    for label, value in enumerate(measured, start=1):
        p, t = ({tuple(place) for place in (labels == label).nonzero().tolist()} for labels in (predicted, truth))
        assert value == pytest.approx(2 * len(p & t) / (len(p) + len(t)))


def test_the_coarse_variant_loses_what_is_thin() -> None:
    """A line one pixel wide of 640 is gone at 64 × 64, a block is not."""
    truth = torch.zeros(640, 640, dtype=torch.int64)
    truth[:320] = 1
    perfect = torch.stack((truth == 0, truth == 1)).float()
    assert dice(small_overlaps(perfect, truth)).item() == 1
    line = torch.zeros_like(truth)
    line[:, 7] = 1
    assert small_overlaps(torch.stack((line == 0, line == 1)).float(), truth)[0, 0] == 0


def test_the_evaluator_on_files(tmp_path: Path) -> None:
    """Two images, one answered rightly, one half: mean 0.75; the CSV holds both, the worse one first."""
    for stem in ("a", "b"):
        for folder, pixels in (("images", np.zeros((4, 4, 3), np.uint8)), ("masks", np.full((4, 4), 255, np.uint8))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{stem}.png")
    spec = image_masks_spec("mine", images=tmp_path / "images", masks=tmp_path / "masks")
    evaluator = DiceEvaluator(spec, output_dir=tmp_path / "out")
    whole = torch.zeros(2, 4, 4)
    whole[1] = 1
    third = torch.zeros(2, 4, 4)
    third[0], third[1, 0], third[1, 1, :1] = 0.5, 1, 1  # 5 of 16 pixels: Dice 10 / 21
    items = [{"image_id": "a", "box_found": True}, {"image_id": "b", "box_found": False}]
    evaluator.process(items, [{"few_shot": whole}, {"few_shot": third}])
    results = evaluator.evaluate()["few_shot"]
    assert results["Dice"] == pytest.approx(100 * (1 + 10 / 21) / 2) and results["n"] == 2
    assert results["IoU"] == pytest.approx(100 * (1 + 5 / 16) / 2)
    rows = list(csv.reader((tmp_path / "out" / "dice_per_image.csv").open()))
    assert [row[0] for row in rows] == ["image_id", "b", "a"] and float(rows[1][2]) == pytest.approx(10 / 21, abs=1e-4)
    assert results["no_box"] == 50 and rows[1][1] == "1"
    read = means(read_scores(tmp_path / "out" / "dice_per_image.csv").values(), ["object"])
    assert read == pytest.approx(results, abs=1e-4)


def test_a_damaged_file_of_scores(tmp_path: Path) -> None:
    """One line that names the file."""
    (tmp_path / "a.csv").write_text("image_id,no_box,Dice object\nb,0,what\n")
    for name in ("a.csv", "b.csv"):
        with pytest.raises(UserError, match=rf"{name} cannot be read"):
            read_scores(tmp_path / name)


def test_means_by_hand() -> None:
    """Two classes, of which the second image lacks one: images first, then classes; NaN counts nowhere."""
    nothing = {"no_box": 0.0}
    first = {f"{name} {word}": value for name in METRICS for word, value in (("a", 1.0), ("b", 0.4))}
    second = {f"{name} {word}": value for name in METRICS for word, value in (("a", 0.5), ("b", math.nan))}
    found = means([nothing | first, nothing | second], ["a", "b"])
    assert found["Dice-a"] == 75 and found["Dice-b"] == 40 and found["Dice"] == 57.5 and found["n"] == 2
    assert mean_dice(second) == 0.5


def test_no_images_is_no_number(tmp_path: Path) -> None:
    """A run without images reports nothing instead of failing."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / folder / "a.png")
    spec = image_masks_spec("mine", images=tmp_path / "images", masks=tmp_path / "masks")
    results = DiceEvaluator(spec, output_dir=tmp_path / "out").evaluate()["few_shot"]
    assert math.isnan(results["Dice"]) and results["n"] == 0
