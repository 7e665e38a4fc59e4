"""detectron2-sam predict with an adapter: pictures, boxes, and command lines that make no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.adapter import write_adapter
from amsam.config import adapter_settings, build_amsam
from amsam.data.worms import write_worms
from amsam.predictor import Predictor
from detectron2_sam.commands import predict
from sam_common.errors import UserError
from tests.amsam.test_amsam import config
from tests.support.files import files_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, and an adapter of an untrained model."""
    root = tmp_path_factory.mktemp("few_shot")
    write_worms(root, seed=0, first_index=0, count=2, size=64)
    torch.manual_seed(0)
    cfg = config("MODEL.SAM.WEIGHTS", "embedded")
    write_adapter(root / "a.safetensors", build_amsam(cfg), settings=adapter_settings(cfg), classes=["worm"])
    return root


def run(folder: Path, output: Path, *more: str) -> int:
    return predict.main(
        ["--adapter", str(folder / "a.safetensors"), "--input", str(folder / "images"), "--output", str(output), *more]
    )


def test_labels_are_those_of_the_predictor(folder: Path, tmp_path: Path) -> None:
    """By a box file, and without a box the whole picture: the written PNG is what Python gives; a picture is drawn."""
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file,x0,y0,x1,y1,score\n000000.jpg,5,5,20,30,0.6\n000000.jpg,10,4,60,50,0.9\n")
    assert run(folder, tmp_path / "out", "--boxes", str(boxes)) == 0
    with pytest.raises(UserError, match=r"would replace 4 files, .*000000\.png the first"):
        run(folder, tmp_path / "out")
    predictor = Predictor.from_adapter(folder / "a.safetensors")
    for name, box in (("000000", [[10, 4, 60, 50]]), ("000001", None)):  # the best of two; none
        written = np.array(Image.open(tmp_path / "out" / "labels" / f"{name}.png"))
        assert np.array_equal(written, predictor(folder / "images" / f"{name}.jpg", box).labels.numpy())
        assert (tmp_path / "out" / f"{name}.png").is_file()


def test_python_writes_and_draws_the_same(folder: Path, tmp_path: Path) -> None:
    """Equality, byte for byte, of the files that the command writes and a result saves; its drawing is the picture."""
    photo, out = folder / "images" / "000000.jpg", tmp_path / "out"
    adapter = ["--adapter", str(folder / "a.safetensors")]
    predict.main([*adapter, "--input", str(photo), "--box", "5,5,50,60", "--output", str(out)])
    result = Predictor.from_adapter(folder / "a.safetensors")(photo, [[5, 5, 50, 60]])
    assert result.save(tmp_path / "saved")[1] == tmp_path / "saved" / "labels" / "000000.png"
    assert files_of(tmp_path / "saved") == files_of(out)
    assert np.array_equal(np.asarray(result.draw()), np.asarray(Image.open(out / "000000.png")))


def test_a_detector_gives_the_box(folder: Path, tmp_path: Path) -> None:
    """`full_image` is the same as no box at all."""
    run(folder, tmp_path / "a", "--detector", "full_image")
    run(folder, tmp_path / "b")
    for name in ("000000", "000001"):
        first, second = ((tmp_path / side / "labels" / f"{name}.png").read_bytes() for side in "ab")
        assert first == second


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--config-file", "configs/amsam_T.yaml"), "--config-file is not needed with --adapter"),
        (("--vocabulary", "cat"), "--vocabulary is for models that look for classes"),
        (("--box", "1,2,3,4", "--detector", "full_image"), "one of --boxes, --box and --detector"),
        (("--detector-weights", "x.pth"), "--detector-weights belongs to --detector"),
    ],
)
def test_command_lines_that_make_no_sense(folder: Path, tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    """One line each, before the model is built."""
    with pytest.raises(UserError, match=message):
        run(folder, tmp_path / "out", *more)


def test_a_model_must_be_named(folder: Path, tmp_path: Path) -> None:
    """Neither a configuration nor an adapter: both are offered."""
    with pytest.raises(UserError, match="give the model: --config, or the --adapter"):
        predict.main(["--input", str(folder / "images"), "--output", str(tmp_path / "out")])
