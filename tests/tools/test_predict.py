"""tools/predict.py from its command line to its files, around a model that paints what it is told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sam_common.data.images import read_segment_ids
from sam_common.errors import UserError
from sam_common.predictor import Predictor
from sam_common.structures import Category
from tools import predict

VOCABULARY = (Category("dog", ("dog",), True, 7), Category("sky", ("sky",), False, 9))


class TwoDogsAndSky(nn.Module):
    """Sees dogs 1 and 300 in the outer columns, scoring 0.9 and 0.3, and sky between them."""

    training_vocabulary = VOCABULARY

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ids = torch.full((batch[0]["height"], batch[0]["width"]), 2, dtype=torch.int32)
        ids[:, 0], ids[:, -1] = 1, 300
        kinds = ((1, 0, 0.9), (2, 1, 0.8), (300, 0, 0.3))
        segments = [{"id": i, "category_id": c, "isthing": c == 0, "score": score} for i, c, score in kinds]
        return [{"panoptic_seg": (ids, segments)}]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*args: Any, **kwargs: Any) -> Predictor:
        return Predictor(TwoDogsAndSky(), min_size=32, max_size=32)

    monkeypatch.setattr(Predictor, "from_config", build)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (20, 10), (90, 120, 150)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def _run(*inputs: Path, output: Path, more: tuple[str, ...] = ()) -> int:
    return predict.main(["--config-file", "x.yaml", "--input", *map(str, inputs), "--output", str(output), *more])


def test_png_and_json_hold_the_prediction(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Round trip: reading the panoptic PNG and JSON back gives the ids, classes, areas and boxes."""
    out = tmp_path / "out"
    assert _run(photo, output=out) == 0
    ids = read_segment_ids(out / "panoptic" / "photo.png")
    content = json.loads((out / "panoptic.json").read_text())
    segments = {segment["id"]: segment for segment in content["annotations"][0]["segments_info"]}
    assert set(segments) == set(ids.unique().tolist()) == {1, 2, 300}
    assert segments[300]["category_id"] == 7 and segments[300]["bbox"] == [19, 0, 1, 10]
    assert segments[2]["area"] == int((ids == 2).sum()) == 180
    assert content["annotations"][0]["file_name"] == "photo.png"
    assert content["images"] == [{"id": 1, "file_name": "photo.jpg", "height": 10, "width": 20}]
    assert np.asarray(Image.open(out / "photo.png")).ndim == 3
    assert capsys.readouterr().out == f"2 dogs, sky → {out / 'photo.png'}\n"
    assert not list(out.rglob(".*")), "no temporary files stay"


def test_output_is_a_dataset_our_reader_takes(photo: Path, tmp_path: Path) -> None:
    """Round trip: what is written is valid COCO panoptic, so that it can be trained and evaluated on."""
    from sam_common.data.coco_panoptic import coco_panoptic_spec, read_ground_truth

    out = tmp_path / "out"
    _run(photo, output=out)
    spec = coco_panoptic_spec("mine", json_file=out / "panoptic.json", images=tmp_path, panoptic=out / "panoptic")
    assert spec.load_vocabulary() == VOCABULARY
    (record,) = spec.load()
    assert read_ground_truth(record).unique(return_counts=True)[1].tolist() == [10, 180, 10]


def test_threshold_drops_what_scores_less(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Derived by hand: at 0.5 the dog of 0.3 goes, its column is void."""
    _run(photo, output=tmp_path / "out", more=("--confidence-threshold", "0.5"))
    assert "1 dog, sky →" in capsys.readouterr().out
    assert not read_segment_ids(tmp_path / "out" / "panoptic" / "photo.png")[:, -1].any()


def test_broken_image_is_named_and_the_others_are_done(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Error: a truncated file among several costs its own result only, one line and the exit status."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photo.read_bytes()[:200])
    assert _run(broken, photo, output=tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert "[1/2] error: " in printed.err and "broken.jpg" in printed.err
    assert "[2/2] 2 dogs, sky →" in printed.out
    assert len(json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"]) == 1


def test_outputs_keep_the_paths_below_the_common_folder() -> None:
    """Derived by hand: two folders with the same file name do not overwrite each other."""
    assert predict.output_names(["a/x/1.jpg", "a/y/1.jpg"]) == {"a/x/1.jpg": "x/1", "a/y/1.jpg": "y/1"}
    assert predict.output_names(["a/x/1.jpg"]) == {"a/x/1.jpg": "1"}


def test_two_inputs_of_one_name_are_refused() -> None:
    """Error: 1.jpg and 1.png would both become 1.png."""
    with pytest.raises(UserError, match=r"1\.png"):
        predict.output_names(["1.jpg", "1.png"])


@pytest.mark.parametrize("words", ["", " ", ";", "# only a comment"])
def test_an_empty_vocabulary_is_not_the_default(photo: Path, tmp_path: Path, words: str) -> None:
    """Error: an empty text, as from an unset shell variable, does not silently become the words of the training."""
    if words.startswith("#"):
        (tmp_path / "words.txt").write_text(words)
        words = str(tmp_path / "words.txt")
    with pytest.raises(UserError, match="holds no words"):
        _run(photo, output=tmp_path / "out", more=("--vocabulary", words))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--confidence-threshold", "7"), "--confidence-threshold is 7; it lies between 0 and 1"),
        (("--confidence-threshold", "high"), "invalid float value: 'high'; see --help"),
        (("--colour", "red"), "unrecognized arguments: --colour; see --help"),
    ],
)
def test_a_wrong_command_line_is_one_line(photo: Path, tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    """Error: no usage text in front of what is wrong."""
    with pytest.raises(UserError, match=message) as error:
        _run(photo, output=tmp_path / "out", more=more)
    assert "\n" not in str(error.value)


def test_nothing_found_is_said() -> None:
    """Edge case: an image of void, and words with irregular plurals."""
    assert predict.describe((torch.zeros(1, 1), []), VOCABULARY) == "nothing found"
    crosses = [{"category_id": 0}, {"category_id": 0}]
    assert predict.describe((torch.zeros(1, 1), crosses), (Category("red cross", ("red cross",)),)) == "2 red crosses"
