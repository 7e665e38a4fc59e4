"""What the predictors share: pictures in any form, and the way from a configuration to its model."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sam_common.config import CfgNode, get_cfg
from sam_common.errors import UserError
from sam_common.predictor import BasePredictor, image_tensor, name_of
from tests.support.wrong import IMAGES


class Mine(BasePredictor):
    """Of a method whose model is a line."""

    builders: ClassVar = {"Mine": lambda cfg: nn.Linear(cfg.MODEL.MINE.WIDTH, 1)}

    @staticmethod
    def add_config(cfg: CfgNode) -> None:
        cfg.MODEL.MINE = CfgNode({"WIDTH": 2})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text("MODEL: {META_ARCHITECTURE: Mine, MINE: {WIDTH: 3}}\nSEED: 5")
    return tmp_path / "mine.yaml"


def one_line(error: pytest.ExceptionInfo[UserError]) -> None:
    assert "\n" not in str(error.value)


def test_a_picture_in_every_form(tmp_path: Path) -> None:
    """Equality: a path, its text, a PIL image, an array, one that may not be written to, one with strides and a tensor
    are the same pixels, without a warning."""
    array = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(array).save(path)
    locked = array.copy()
    locked.setflags(write=False)
    expected = torch.from_numpy(array).permute(2, 0, 1)
    flipped = np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image in (path, str(path), Image.open(path), array, locked, flipped, expected):
            assert torch.equal(image_tensor(image), expected)
    assert [name_of(image) for image in (path, str(path), array)] == [str(path), str(path), ""]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_pil_images_of_every_kind_are_read_as_their_files(tmp_path: Path, mode: str) -> None:
    """Equality: palettes, transparency, 16 bits and the camera's orientation are treated as in a file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (40, 30), (200, 30, 90)).convert("I" if mode == "I;16" else mode).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path, exif=exif)
    found = image_tensor(Image.open(path))
    assert found.shape == (3, 40, 30) and torch.equal(found, image_tensor(path))


@pytest.mark.parametrize(("image", "message"), IMAGES.values(), ids=IMAGES)
def test_what_is_no_picture(image: Any, message: str) -> None:
    """Error: one line that says what it is and what it should be."""
    with pytest.raises(UserError, match=message) as error:
        image_tensor(image)
    one_line(error)


def test_a_damaged_pil_image(tmp_path: Path) -> None:
    """Error: Pillow reads pixels late, when half of them may be missing."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:900])
    with pytest.raises(UserError, match="the image cannot be read as an image, it may be truncated") as error:
        image_tensor(Image.open(tmp_path / "half.jpg"))
    one_line(error)


def test_a_configuration_is_a_path_or_one_that_was_read(config: Path) -> None:
    """Equality: both give the same model, with overrides that need not be texts, drawn with the seed of the
    configuration; neither what was given nor the random numbers of others change."""
    cfg = get_cfg()
    Mine.add_config(cfg)
    cfg.merge_from_file(config)
    cfg.freeze()
    state = torch.get_rng_state()
    options = ["MODEL.DEVICE", "cpu", "MODEL.MINE.WIDTH", 4]
    models = [Mine.from_config(each, weights="random", options=options).model for each in (config, str(config), cfg)]
    assert torch.equal(torch.get_rng_state(), state) and cfg.MODEL.MINE.WIDTH == 3
    torch.manual_seed(5)
    for model in models:
        assert torch.equal(model.weight, nn.Linear(4, 1).weight)
        torch.manual_seed(5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": None}, "a configuration is a name or a path, this is NoneType"),
        ({"config": "nowhere"}, "there is no configuration file nowhere"),
        ({"weights": 5}, "weights are the path of a file, or random, this is int"),
        ({"weights": ""}, r"mine\.yaml names no trained weights"),
        ({"weights": "nowhere.pth"}, r"there is no checkpoint nowhere\.pth"),
        ({"options": "SEED 3"}, "options are a list, KEY VALUE KEY VALUE …, this is str"),
        ({"options": ["SEED"]}, "overrides come as KEY VALUE pairs"),
        ({"options": ["MODEL.META_ARCHITECTURE", "Other"]}, "MODEL.META_ARCHITECTURE is 'Other'; choose one of Mine"),
    ],
)
def test_what_cannot_be_loaded(config: Path, arguments: dict[str, Any], message: str) -> None:
    """Error: one line."""
    given = {"config": config, "weights": "random", "options": ()} | arguments
    with pytest.raises(UserError, match=message) as error:
        Mine.from_config(**given)
    one_line(error)


def test_keys_of_another_method_are_named(config: Path) -> None:
    """Error: a file of a run that knew all methods; the message names the first foreign key and two ways out."""
    config.write_text(config.read_text() + "\nOUTPUT_DIR: here\nTHEIRS: {DEPTH: 3}")
    with pytest.raises(UserError, match=r"key THEIRS\.DEPTH; .*delete that .*`detectron2-sam predict`") as error:
        Mine.from_config(config, weights="random")
    one_line(error)


@pytest.mark.parametrize("package", ["possam", "plug", "amsam"])
def test_importing_a_method_is_cheap(package: str) -> None:
    """A fresh process: the package imports no torch until a name of it is asked for; then each is what it says."""
    code = f"""
import sys, {package}
assert "torch" not in sys.modules and "numpy" not in sys.modules
assert all(getattr({package}, name).__name__ == name for name in {package}.__all__) and "torch" in sys.modules
try:
    {package}.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
