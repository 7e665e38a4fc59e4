"""Detectors of extra packages: what is said where the package is absent, how files are read, and, where the package is
present, the detectors themselves with random weights."""

from __future__ import annotations

import logging
import os
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from sam_common.boxes.detectors import build_box_source, build_detector
from sam_common.boxes.ultralytics_detector import _description, letterbox, read_yolo
from sam_common.errors import UserError

IMAGE = torch.randint(0, 256, (3, 50, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("transformers:a/b", r"needs the package transformers \(Apache-2.0\).*pip install 'transformers>=4.51'"),
        ("ultralytics:a.pt", r"needs the package ultralytics.*AGPL-3.0.*pip install 'ultralytics>=8.3'"),
    ],
)
def test_a_missing_package_is_named_with_its_licence(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the command, however the detector was asked for."""
    monkeypatch.setitem(sys.modules, name.partition(":")[0], None)  # as if it were not installed
    for make in (build_detector, build_box_source):
        with pytest.raises(UserError, match=message) as error:
            make(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["transformers", "transformers:", "yolo:a.pt"])
def test_a_family_needs_a_name(name: str) -> None:
    """The known names are listed, and how those of families begin."""
    with pytest.raises(UserError, match=r"there is no detector .*transformers:…, ultralytics:…"):
        build_detector(name)


def test_an_image_is_fitted_into_the_sides_that_yolo_wants() -> None:
    """Derived by hand: 50 × 80 becomes 400 × 640, which is padded with grey at the bottom to 416 = 13 · 32."""
    pixels, scale = letterbox(torch.full((3, 50, 80), 255, dtype=torch.uint8))
    assert pixels.shape == (3, 416, 640) and scale == 8
    assert (pixels[:, :400] == 1).all() and torch.allclose(pixels[:, 400:], torch.tensor(114 / 255))


class Layer(nn.Module):
    """Stands for a class of the package: its code must not be needed, nor run, to read a file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("grid", torch.ones(2), persistent=False)
        self.light = nn.Parameter(torch.ones(2, dtype=torch.float16))

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("code of the file ran")


def yolo(**changes: Any) -> Layer:
    layer = Layer()
    layer.yaml, layer.names = {"yaml_file": "/somewhere/yolov8n.yaml", "nc": 2}, {0: "cat", 1: "dog"}
    layer.__dict__.update(changes)
    return layer


def test_of_a_pickled_model_only_names_and_numbers_are_taken(tmp_path: Path) -> None:
    """The weights are those of the state dict, in float32, whatever classes the file names; none of their code runs."""
    model = yolo()
    torch.save({"epoch": -1, "model": model, "ema": None}, tmp_path / "a.pt")
    description, names, weights = read_yolo(str(tmp_path / "a.pt"))
    assert (description, names) == ("yolov8n.yaml", {0: "cat", 1: "dog"})
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(value.float(), weights[name].float()) for name, value in model.state_dict().items())
    assert weights["light"].dtype == torch.float32 and weights["norm.num_batches_tracked"].dtype == torch.int64


class Evil:
    """Would make a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no pickle", r"a\.pt cannot be read as a YOLO model"),
        ({"model": OrderedDict(a=torch.zeros(1))}, r"a\.pt is no YOLO model: it lacks the model"),
        (yolo(), r"is no YOLO model"),
        ({"model": yolo(names={1: "dog"})}, r"is no YOLO model"),
        ({"model": yolo(yaml={"yaml_file": "https://x/y"})}, r"is no YOLO model"),
    ],
)
def test_a_file_of_something_else(content: object, message: str, tmp_path: Path) -> None:
    """One line each: damaged; a state dict; a bare module; classes with gaps; a description that is no name."""
    path = tmp_path / "a.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        read_yolo(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["x", "model"])
def test_a_file_that_would_run_something_does_not(place: str, tmp_path: Path) -> None:
    """The folder that unpickling it would make is not made."""
    torch.save({"model": yolo(), place: Evil(tmp_path / "made")}, tmp_path / "a.pt")
    with pytest.raises(UserError):
        read_yolo(str(tmp_path / "a.pt"))
    assert not (tmp_path / "made").exists()


def test_layers_inside_themselves(tmp_path: Path) -> None:
    """A file whose module is a part of itself, or whose parts are of the wrong kind: one line."""
    circle = yolo()
    circle._modules["conv"] = circle
    wrong = yolo(_parameters=[1])
    for model in (circle, wrong):
        torch.save({"model": model}, tmp_path / "a.pt")
        with pytest.raises(UserError, match="no YOLO model: its layers are damaged"):
            read_yolo(str(tmp_path / "a.pt"))


def test_a_description_is_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the working folder, whose activation the package would run as code, is not read; scales share a file."""
    package, work = tmp_path / "package", tmp_path / "work"
    for folder, words in ((package / "v8", "nc: 80"), (work, "activation: evil()")):
        folder.mkdir(parents=True)
        (folder / "yolov8.yaml").write_text(words)
        (folder / "yolov8-p6.yaml").write_text(words)
    (work / "mine.yaml").write_text("activation: evil()")
    monkeypatch.chdir(work)
    assert _description(package, "yolov8n.yaml") == {"nc": 80, "scale": "n", "yaml_file": "yolov8n.yaml"}
    assert _description(package, "yolov8x-p6.yaml") == {"nc": 80, "scale": "x", "yaml_file": "yolov8x-p6.yaml"}
    assert _description(package, "mine.yaml") is None


def test_no_file_at_all() -> None:
    """Where official ones are is said; none is fetched."""
    with pytest.raises(UserError, match=r"there is no file none\.pt; get it from https://github.com/ultralytics"):
        read_yolo("none.pt")


# With the packages themselves


def tiny_rt_detr(folder: Path) -> None:
    transformers: ModuleType = pytest.importorskip("transformers")
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[8] * 3, encoder_hidden_dim=16, d_model=16, encoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, decoder_layers=1, decoder_ffn_dim=16, num_queries=10,
        decoder_in_channels=[16] * 3, id2label={0: "cat", 1: "dog"},
    )  # fmt: skip
    transformers.RTDetrForObjectDetection(config).save_pretrained(folder)
    transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def tiny_grounding_dino(folder: Path) -> None:
    transformers: ModuleType = pytest.importorskip("transformers")
    image = transformers.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = transformers.BertConfig(
        vocab_size=1100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config = transformers.GroundingDinoConfig(
        backbone_config=image, text_config=text, d_model=32, encoder_layers=1, encoder_ffn_dim=16, decoder_layers=2,
        encoder_attention_heads=2, decoder_ffn_dim=16, decoder_attention_heads=2, num_queries=10,
    )  # fmt: skip
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    words = folder / "words.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "person", "dog"]))
    processor = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    transformers.GroundingDinoProcessor(processor, transformers.BertTokenizer(str(words))).save_pretrained(folder)


def test_rt_detr(tmp_path: Path) -> None:
    """With random weights: boxes inside the image, of the model's classes; told words, it refuses."""
    tiny_rt_detr(tmp_path)
    found = build_detector(f"transformers:{tmp_path}", score_threshold=0.0)(IMAGE)
    assert len(found) and set(found.categories or ()) <= {"cat", "dog"}
    assert (found.boxes[:, 2:] <= torch.tensor([80, 50])).all() and (found.boxes >= 0).all()
    with pytest.raises(UserError, match="knows its own classes and takes no words"):
        build_detector(f"transformers:{tmp_path}:dog")
    with pytest.raises(UserError, match="cannot be loaded .* a folder that holds its config.json"):
        build_detector(f"transformers:{tmp_path / 'none'}")


def test_grounding_dino(tmp_path: Path) -> None:
    """With random weights: boxes inside the image, with the words they were found by; without words, it refuses."""
    tiny_grounding_dino(tmp_path)
    found = build_detector(f"transformers:{tmp_path}:Person, dog", score_threshold=0.0)(IMAGE)
    assert len(found) == len(found.categories or ()) > 0
    assert (found.boxes[:, 2:] <= torch.tensor([80, 50])).all() and (found.boxes >= 0).all()
    with pytest.raises(UserError, match=r"looks for what it is told; give words: transformers:.*:person, dog"):
        build_detector(f"transformers:{tmp_path}")


def test_yolo(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that the package wrote gives the boxes of the model that was saved, and the licence is said."""
    tasks: ModuleType = pytest.importorskip("ultralytics.nn.tasks")
    torch.manual_seed(0)
    model = tasks.DetectionModel("yolov8n.yaml", nc=2, verbose=False).eval()
    model.names = {0: "cat", 1: "dog"}
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)  # as it is made, all its scores are near nothing
    torch.save({"model": model, "ema": None}, tmp_path / "a.pt")
    with caplog.at_level(logging.WARNING):
        detector = build_detector(f"ultralytics:{tmp_path / 'a.pt'}", score_threshold=0.0)
    assert "AGPL-3.0" in caplog.text
    found = detector(IMAGE)
    with torch.inference_mode():
        best = model(letterbox(IMAGE)[0][None])[0][0, 4:].max()
    assert len(found) and found.scores.max() == pytest.approx(float(best), abs=1e-5)
    assert (found.boxes[:, 2:] <= torch.tensor([80, 50])).all() and set(found.categories or ()) <= {"cat", "dog"}
