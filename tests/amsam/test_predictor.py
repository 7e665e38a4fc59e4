"""From a picture and boxes to labels, in Python; which boxes are chosen, and adapter files, are in test_adapter.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.adapter import write_adapter
from amsam.config import adapter_settings
from amsam.predictor import Predictor
from sam_common.data.images import read_image
from sam_common.engine.checkpoint import frozen_sha256, trained_state
from sam_common.errors import UserError
from tests.amsam.test_amsam import config
from tests.support.wrong import BOXES, IMAGES

OPTIONS = ["MODEL.DEVICE", "cpu", "MODEL.AMSAM.IMAGE_SIZE", 64, "MODEL.AMSAM.NUM_CLASSES", 2]
ROWS = [[5, 5, 20, 20], [10, 2, 39, 28]]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_config("amsam_T", weights="random", options=OPTIONS)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = torch.randint(0, 256, (30, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_file_an_array_a_tensor_and_a_pil_image_are_one_image(predictor: Predictor, picture: Path) -> None:
    """Equality: four ways to give an image and three to give the boxes; labels have the image's size."""
    pixels = read_image(picture)
    first = predictor(picture, ROWS)
    assert first.labels.shape == (30, 40) and first.labels.dtype == torch.int64
    images = pixels.permute(1, 2, 0).numpy(), pixels, Image.open(picture)
    for image, boxes in zip(images, (np.array(ROWS), torch.tensor(ROWS), ROWS), strict=True):
        assert torch.equal(predictor(image, boxes).labels, first.labels)


@pytest.mark.parametrize(("image", "message"), IMAGES.values(), ids=IMAGES)
def test_what_is_no_picture(predictor: Predictor, image: Any, message: str) -> None:
    """Error: one line."""
    with pytest.raises(UserError, match=message):
        predictor(image)


@pytest.mark.parametrize(("boxes", "message"), BOXES.values(), ids=BOXES)
def test_what_is_no_box(predictor: Predictor, picture: Path, boxes: Any, message: str) -> None:
    """Error: the file and the box are named, in one line; two points are not read as one box."""
    with pytest.raises(UserError, match=rf"a\.png: .*{message}") as error:
        predictor(picture, boxes)
    assert "\n" not in str(error.value)


def test_a_checkpoint_and_an_adapter_of_one_model(predictor: Predictor, picture: Path, tmp_path: Path) -> None:
    """Round trip: both predict what the model predicted; the names of the classes are in the adapter alone, and as many
    as the configuration's."""
    model = predictor.model
    content = {"model": trained_state(model), "frozen_sha256": frozen_sha256(model), "seed": 0}
    torch.save(content, tmp_path / "model.pth")
    settings = adapter_settings(config("MODEL.SAM.WEIGHTS", "embedded", *OPTIONS[2:]))
    write_adapter(tmp_path / "a.safetensors", model, settings=settings, classes=["worm", "leaf"])
    expected = predictor(picture, ROWS).labels
    named = {"model.pth": ["class 1", "class 2"], "a.safetensors": ["worm", "leaf"]}
    for name, classes in named.items():
        loaded = Predictor.from_config("amsam_T", weights=tmp_path / name, options=OPTIONS)
        assert loaded.classes == classes and torch.equal(loaded(picture, ROWS).labels, expected)
    with pytest.raises(UserError, match=r"a\.safetensors is for another model"):
        Predictor.from_config("amsam_T", weights=tmp_path / "a.safetensors", options=[*OPTIONS[:-1], 1])


def test_no_weights_is_an_error() -> None:
    """Error: an untrained model is not used by accident."""
    with pytest.raises(UserError, match="amsam_T names no trained weights"):
        Predictor.from_config("amsam_T")
