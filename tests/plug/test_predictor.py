"""From an image and boxes to whole objects, in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from plug.predictor import Predictor
from sam_common.boxes.boxes import Boxes
from sam_common.data.images import read_image
from sam_common.engine.checkpoint import frozen_sha256, trained_state
from sam_common.errors import UserError
from tests.support.wrong import BOXES, IMAGES

TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.SAM.WEIGHTS": "random",
    "MODEL.PLUG.CROP_SIZE": "64",
    "MODEL.PLUG.LORA_RANK": "4",
    "MODEL.PLUG.REFINE_WIDTH": "8",
}
OPTIONS = [word for pair in TINY.items() for word in pair]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_config("configs/plug_T.yaml", weights="random", options=OPTIONS)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = torch.randint(0, 256, (30, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_file_an_array_a_tensor_and_a_pil_image_are_one_image(predictor: Predictor, picture: Path) -> None:
    """Equality: four ways to give an image and the boxes; objects come in the boxes' order."""
    rows = [[5, 5, 20, 20], [10, 2, 39, 28]]
    pixels = read_image(picture)
    first = predictor(picture, rows).instances
    asked = Boxes(torch.tensor(rows, dtype=torch.float32), torch.ones(2))
    images = pixels.permute(1, 2, 0).numpy(), pixels, Image.open(picture)
    boxes = np.array(rows), torch.tensor(rows), asked
    others = [predictor(image, some).instances for image, some in zip(images, boxes, strict=True)]
    assert first.image_size == (30, 40) and first.pred_boxes.tolist() == rows
    for other in others:
        for index in range(2):
            assert torch.equal(first.amodal_mask(index), other.amodal_mask(index))
            assert torch.equal(first.visible_mask(index), other.visible_mask(index))
    swapped = predictor(picture, rows[::-1]).instances
    assert torch.equal(swapped.amodal_mask(0), first.amodal_mask(1))


def test_no_boxes_and_boxes_that_reach_out(predictor: Predictor, picture: Path) -> None:
    """Edge cases: none gives none; of a box that reaches out of the image the inner part is asked about."""
    assert all(len(predictor(picture, none).instances) == 0 for none in ([], torch.zeros(0, 4)))
    assert predictor(picture, [[-10, -10, 5, 500]]).instances.pred_boxes.tolist() == [[0, 0, 5, 30]]


@pytest.mark.parametrize(("boxes", "message"), [*BOXES.values(), (None, "boxes are rows of four numbers")])
def test_boxes_that_cannot_be_asked_about(predictor: Predictor, picture: Path, boxes: Any, message: str) -> None:
    """Error: the file and the box are named, in one line."""
    with pytest.raises(UserError, match=rf"a\.png: .*{message}") as error:
        predictor(picture, boxes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("image", "message"), IMAGES.values(), ids=IMAGES)
def test_what_is_no_picture(predictor: Predictor, image: Any, message: str) -> None:
    """Error: one line."""
    with pytest.raises(UserError, match=message):
        predictor(image, [[1, 1, 5, 5]])


def test_boxes_keep_what_is_known_of_them(predictor: Predictor, picture: Path) -> None:
    """Derived by hand: classes are told and written, scores multiplied, numbers are ids; a box is cut to the image."""
    boxes = torch.tensor([[-5.0, 5, 20, 20], [10, 2, 39, 28], [0, 0, 9, 9]])
    found = predictor(picture, Boxes(boxes, torch.tensor([0.5, 1.0, 1.0]), ["dog", "7", "dog"]))
    assert found.describe() == "2 dogs, 1 object" and found.boxes.boxes[0].tolist() == [0, 5, 20, 20]
    first, second, _ = found.to_coco()
    assert first["category"] == "dog" and second["category_id"] == 7 and "category" not in second
    assert first["score"] == pytest.approx(0.5 * float(found.instances.scores[0]))
    assert predictor(picture, []).describe() == "no boxes"


def test_many_objects_are_the_same_as_few(predictor: Predictor, picture: Path) -> None:
    """Equality: 200 tiny boxes at once, in groups of `MAX_CROPS`, against each alone; what is kept of an object is as
    small as its window, not as the image."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, generator=generator) * torch.tensor([34.0, 24.0])
    boxes = torch.cat((corners, corners + 2 + 3 * torch.rand(200, 2, generator=generator)), dim=1)
    found = predictor(picture, boxes).instances
    assert len(found) == len(found.pred_masks) == 200
    assert max(mask.numel() for mask in found.pred_masks) <= 12 * 12
    for index in (0, 17, 199):
        alone = predictor(picture, boxes[index : index + 1]).instances
        different = (alone.amodal_mask(0) != found.amodal_mask(index)).sum()
        assert different <= 1  # a pixel at the threshold may fall either way in another batch


def test_a_checkpoint_is_used(predictor: Predictor, picture: Path, tmp_path: Path) -> None:
    """Round trip: a model whose last layer is changed, saved and built again predicts what it predicted."""
    changed = Predictor.from_config("configs/plug_T.yaml", weights="random", options=OPTIONS)
    with torch.no_grad():
        changed.model.refine.head.bias.add_(9)
    content = {"model": trained_state(changed.model), "frozen_sha256": frozen_sha256(changed.model), "seed": 0}
    torch.save(content, tmp_path / "model.pth")
    loaded = Predictor.from_config("configs/plug_T.yaml", weights=str(tmp_path / "model.pth"), options=OPTIONS)
    one, two = (each(picture, [[5, 5, 20, 20]]).instances for each in (changed, loaded))
    assert torch.equal(one.amodal_mask(0), two.amodal_mask(0)) and one.amodal_mask(0)[5:20, 5:20].all()


def test_no_weights_is_an_error() -> None:
    """Error: an untrained model is not used by accident."""
    with pytest.raises(UserError, match=r"configs/plug_T\.yaml names no trained weights"):
        Predictor.from_config("configs/plug_T.yaml", options=OPTIONS)


def test_another_model_is_an_error() -> None:
    """Error: the SAM that PLUG is compared with is asked by boxes of whole objects, which nobody gives here."""
    with pytest.raises(UserError, match="MODEL.META_ARCHITECTURE is 'VanillaSAM'; choose one of PLUG"):
        Predictor.from_config("configs/plug_T.yaml", options=[*OPTIONS, "MODEL.META_ARCHITECTURE", "VanillaSAM"])
