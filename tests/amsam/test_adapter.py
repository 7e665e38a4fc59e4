"""Adapter files: small, complete, and refused where they do not belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from amsam.adapter import read_adapter, write_adapter
from amsam.amsam import AMSAM
from amsam.config import adapter_settings, build_amsam
from amsam.predictor import Predictor
from sam_common.boxes.boxes import Boxes
from sam_common.errors import UserError
from tests.amsam.test_amsam import config, entry

EMBEDDED = ("MODEL.SAM.WEIGHTS", "embedded")


@pytest.fixture
def model() -> AMSAM:
    """Some trained state: what begins at zero is drawn."""
    torch.manual_seed(3)
    built = build_amsam(config(*EMBEDDED))
    for name, parameter in built.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.05)
    return built.eval()


def write(model: AMSAM, path: Path) -> Path:
    write_adapter(path, model, settings=adapter_settings(config(*EMBEDDED)), classes=["worm"])
    return path


def test_what_was_written_predicts_as_before(model: AMSAM, tmp_path: Path) -> None:
    """The same labels from the file alone, by array, tensor and without boxes; its class has its name."""
    predictor = Predictor.from_adapter(write(model, tmp_path / "a.safetensors"))
    item = entry()
    with torch.inference_mode():
        expected = model([item])[0]["few_shot"].argmax(0)
        whole = model([item | {"boxes": torch.tensor([[0.0, 0, 70, 50]])}])[0]["few_shot"].argmax(0)
    found = predictor(item["image"], item["boxes"])
    assert torch.equal(found.labels, expected) and found.classes == predictor.classes == ["worm"]
    array = item["image"].permute(1, 2, 0).numpy()
    assert torch.equal(predictor(array, item["boxes"].numpy()).labels, expected)
    assert all(torch.equal(predictor(item["image"], none).labels, whole) for none in (None, []))


def test_boxes_are_chosen_as_in_the_training(model: AMSAM, tmp_path: Path) -> None:
    """Of two boxes that a detector found, told by the labels: the best one, that of a class, the one around both. A
    model that learned without boxes is given none, also no box of the whole image, and refuses any."""
    item = entry()
    boxes = torch.tensor([[20.0, 10, 50, 30], [0, 0, 9, 9]])
    found = Boxes(boxes, torch.tensor([0.3, 0.9]), ["person", "dog"])

    def expected(*corners: list[float]) -> torch.Tensor:
        with torch.inference_mode():
            return model([item | {"boxes": torch.tensor(corners).view(-1, 4)}])[0]["few_shot"].argmax(0)

    def predictor(*options: str) -> Predictor:
        path = tmp_path / "a.safetensors"
        write_adapter(path, model, settings=adapter_settings(config(*EMBEDDED, *options)), classes=["worm"])
        return Predictor.from_adapter(path)

    best, person, union = [0.0, 0, 9, 9], [20.0, 10, 50, 30], [0.0, 0, 50, 30]
    assert torch.equal(predictor()(item["image"], found).labels, expected(best))
    assert torch.equal(predictor("INPUT.BOXES.CLASSES", "('person',)")(item["image"], found).labels, expected(person))
    assert torch.equal(predictor("INPUT.BOXES.SELECT", "union")(item["image"], found).labels, expected(union))
    assert torch.equal(predictor("INPUT.BOXES.SELECT", "all")(item["image"], found).labels, expected(*boxes.tolist()))
    without = predictor("INPUT.BOXES.SELECT", "none")
    assert torch.equal(without(item["image"]).labels, expected())
    for given in (found, boxes):
        with pytest.raises(UserError, match="learned without boxes"):
            without(item["image"], given)


def test_it_is_small_at_the_papers_size(tmp_path: Path) -> None:
    """ViT-B, one class: 510,242 trained parameters, at most 3 MB."""
    big = build_amsam(config("MODEL.SAM.SIZE", "B", "MODEL.AMSAM.IMAGE_SIZE", 256))
    assert write(big, tmp_path / "b.safetensors").stat().st_size <= 3_000_000


def test_another_encoder_is_refused(model: AMSAM, tmp_path: Path) -> None:
    """The SHA-256 of the frozen weights decides; the message names both."""
    path = write(model, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"a\.safetensors was trained beside other frozen weights"):
        Predictor.from_adapter(path, options=["MODEL.SAM.WEIGHTS", "random"])


def test_files_that_are_no_adapter(model: AMSAM, tmp_path: Path) -> None:
    """Missing, cut off, another kind of safetensors, settings that are no YAML or build Python objects: one line."""
    path = write(model, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="there is no adapter"):
        read_adapter(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut\.safetensors is no adapter, or is damaged"):
        read_adapter(tmp_path / "cut.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors is no adapter of this version"):
        read_adapter(tmp_path / "other.safetensors")
    strange = ("MODEL: {NONSENSE: 1}", "OUTPUT_DIR: /tmp", "MODEL: 3", "MODEL: {META_ARCHITECTURE: PLUG}", "[" * 5000)
    strange += ("MODEL: {META_ARCHITECTURE: AMSAM}\nINPUT: {BOXES: {SOURCE: a}}",)
    for settings in ("!!python/object/apply:os.system ['true']", "just words", *strange):
        write_adapter(path, model, settings=settings, classes=["worm"])
        with pytest.raises(UserError, match="the adapter"):
            Predictor.from_adapter(path)


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [float("nan"), 0, 3, 3], [100, 100, 120, 120]])
def test_boxes_that_show_nothing_are_refused(model: AMSAM, box: list[float]) -> None:
    """No area, no number, outside: named."""
    with pytest.raises(UserError, match="box 0"):
        Predictor(model, ["worm"])(entry()["image"], [box])


@pytest.mark.parametrize("boxes", [[[10, 20], [110, 220]], [10, 20, 110, 220], [[10, 20, 110]], [["a", 1, 2, 3]]])
def test_what_has_no_four_corners_is_refused(model: AMSAM, boxes: Any) -> None:
    """Error: two points, or one flat row, are not silently read as a box."""
    with pytest.raises(UserError, match=r"^boxes are (\[N, 4\], )?rows of .*x0, y0, x1, y1[^\n]*$"):
        Predictor(model, ["worm"])(entry()["image"], boxes)


def test_a_file_names_no_folder_to_write_to(model: AMSAM, tmp_path: Path) -> None:
    """A cache that a foreign adapter asks for is not made."""
    settings = adapter_settings(config(*EMBEDDED)).replace("CACHE: ''", f"CACHE: {tmp_path / 'made'}")
    assert "made" in settings
    write_adapter(tmp_path / "a.safetensors", model, settings=settings, classes=["worm"])
    Predictor.from_adapter(tmp_path / "a.safetensors")(entry()["image"])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("classes", [[], ["worm", "leaf"]])
def test_the_names_are_as_many_as_the_classes(model: AMSAM, tmp_path: Path, classes: list[str]) -> None:
    """Or else a label without a name would be met in the middle of a folder."""
    write_adapter(tmp_path / "a.safetensors", model, settings=adapter_settings(config(*EMBEDDED)), classes=classes)
    with pytest.raises(UserError, match=f"names {len(classes)} classes, its model has 1"):
        Predictor.from_adapter(tmp_path / "a.safetensors")


def test_hashes_that_are_no_texts(model: AMSAM, tmp_path: Path) -> None:
    """One line."""
    texts = {"format": "amsam-adapter-1", "settings": "", "classes": "[]", "frozen_sha256": '{"encoder": 5}'}
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=texts)
    with pytest.raises(UserError, match="its SHA-256 are of the wrong kind"):
        read_adapter(tmp_path / "a.safetensors")
