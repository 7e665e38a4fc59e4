"""What AM-SAM is compared with: SAM told the box, and the box itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam as OfficialSam

from amsam.baselines import BoxRectangle
from amsam.config import build_box_rectangle, build_prompted_sam
from amsam.data.worms import write_worms
from detectron2_sam.commands import train as train_net
from sam_common.errors import UserError
from sam_common.sam.build import build_sam
from sam_common.sam.load import load_sam_weights
from tests.amsam.test_amsam import config, entry
from tests.amsam.test_run import arguments


def test_the_box_is_the_answer() -> None:
    """4 × 6 pixels, boxes (1, 1)-(3, 2) and (2.6, 0)-(5, 3): pixels whose centres they hold, by hand."""
    boxes = torch.tensor([[1.0, 1, 3, 2], [2.6, 0, 5, 3]])
    item = {"image": torch.zeros(3, 4, 6, dtype=torch.uint8), "boxes": boxes}
    (output,) = BoxRectangle()([item])
    expected = torch.tensor([[0, 0, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]])
    assert torch.equal(output["few_shot"].argmax(0), expected)
    assert torch.equal(output["few_shot"].sum(0), torch.ones(4, 6))


def test_sam_is_asked_as_segment_anything_asks_it() -> None:
    """The pixels of segment-anything's own predictor, told the same box of a picture that is not square."""
    cfg = config("MODEL.SAM.WEIGHTS", "embedded", "MODEL.AMSAM.IMAGE_SIZE", 256)
    model = build_prompted_sam(cfg).eval()
    item = entry()
    sam = build_sam("T")
    load_sam_weights(sam, "embedded")
    official = OfficialSam(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder).eval()
    predictor = SamPredictor(official)
    predictor.set_image(item["image"].permute(1, 2, 0).numpy())
    masks, _, _ = predictor.predict(box=np.array(item["boxes"][0]), multimask_output=False)
    with torch.no_grad():
        (output,) = model([item])
    assert (output["few_shot"].argmax(0).bool().numpy() == masks[0]).mean() > 0.98  # another antialiasing


def test_both_are_tested_and_not_trained(tmp_path: Path) -> None:
    """--eval-only needs no weights; a training is refused."""
    for split in ("pool", "test"):
        write_worms(tmp_path / split, seed=0, first_index=0, count=6, size=64)
    for name in ("PromptedSAM", "BoxRectangle"):
        named = ("MODEL.META_ARCHITECTURE", name)
        results = train_net.main(arguments(tmp_path, tmp_path / name, *named, flags=("--eval-only",)))
        assert 0 <= results["few_shot_test"]["few_shot"]["Dice"] <= 100
        with pytest.raises(UserError, match=f"{name} has nothing to train"):
            train_net.main(arguments(tmp_path, tmp_path / f"{name}_trained", *named))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("MODEL.AMSAM.NUM_CLASSES", 2, "knows one class"), ("INPUT.BOXES.SELECT", "none", "nothing but boxes")],
)
def test_what_they_cannot_answer(key: str, value: object, message: str) -> None:
    """Several classes, or no boxes: one line that names the key."""
    for build in (build_prompted_sam, build_box_rectangle):
        with pytest.raises(UserError, match=message):
            build(config(key, value))
