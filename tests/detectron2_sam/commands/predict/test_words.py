"""detectron2-sam predict from its command line to its files, around a model that paints what it is told to."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as codec
from torch import nn

from detectron2_sam.commands import predict
from detectron2_sam.commands.cli import run_tool
from detectron2_sam.commands.predict import run as predict_run
from detectron2_sam.commands.predict.video import VideoReader
from possam.predictor import Predictor
from possam.results import Prediction
from sam_common.data.images import read_segment_ids
from sam_common.data.label_maps import label_maps_spec
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import Interrupted, UserError
from sam_common.io.resources import resource
from sam_common.structures import Category, Instances, Vocabulary
from tests.support.files import files_of
from tests.support.segments import read_segments

VOCABULARY = (Category("dog", ("dog",), True, 7), Category("sky", ("sky",), False, 9))


class TwoDogsAndSky(nn.Module):
    """Sees dogs 1 and 300 in the outer columns, scoring 0.9 and 0.3, and sky between them."""

    training_vocabulary = VOCABULARY
    clip = SimpleNamespace(unknown_words=lambda words: [])

    def __init__(self, task: str) -> None:
        super().__init__()
        self.made = {"panoptic": "panoptic_seg", "semantic": "sem_seg_labels", "instance": "instances"}[task]

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ids = torch.full((batch[0]["height"], batch[0]["width"]), 2, dtype=torch.int32)
        ids[:, 0], ids[:, -1] = 1, 300
        kinds = ((1, 0, 0.9), (2, 1, 0.8), (300, 0, 0.3))
        segments = [{"id": i, "category_id": c, "isthing": c == 0, "score": score} for i, c, score in kinds]
        dogs = torch.zeros(2, *ids.shape, dtype=torch.bool)
        dogs[0, :, :1], dogs[1, :, -2:] = True, True
        width, height = ids.shape[1], ids.shape[0]
        boxes = torch.tensor([[0.0, 0, 1, height], [width - 2, 0, width, height]])
        instances = Instances((height, width), dogs, torch.tensor([0.9, 0.3]), torch.tensor([0, 0]), boxes)
        outputs = {"panoptic_seg": (ids, segments), "sem_seg_labels": (ids == 2).long(), "instances": instances}
        return [{self.made: outputs[self.made]}]


def write_video(path: Path, *, frames: int) -> None:
    """A grey video, 64 × 48, at 10 frames per second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    writer.release()


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*args: Any, **kwargs: Any) -> Predictor:
        return Predictor(TwoDogsAndSky(kwargs["task"]), min_size=32, max_size=32)

    monkeypatch.setattr(Predictor, "from_config", build)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (20, 10), (90, 120, 150)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def _run(*inputs: Path, output: Path, more: tuple[str, ...] = ()) -> int:
    return predict.main(
        ["--config-file", "configs/possam_T.yaml", "--input", *map(str, inputs), "--output", str(output), *more]
    )


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


@pytest.mark.parametrize("task", ["panoptic", "semantic", "instance"])
def test_python_writes_and_draws_the_same(photo: Path, tmp_path: Path, task: str) -> None:
    """Equality, byte for byte, of the files that the command writes and a result saves; its drawing is the picture."""
    out, words = tmp_path / "out", "hound; heaven:stuff"
    _run(photo, output=out, more=("--task", task, "--vocabulary", words))
    result = Predictor.from_config("possam_T", task=task)(photo, words)
    assert result.save(tmp_path / "saved")[0] == tmp_path / "saved" / "photo.png"
    assert files_of(tmp_path / "saved") == files_of(out)
    assert np.array_equal(np.asarray(result.draw()), np.asarray(Image.open(out / "photo.png")))


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
    assert _run(broken, photo, output=tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "[1/2] error: " in printed.err and "broken.jpg" in printed.err
    assert "error: 1 of 2 inputs could not be predicted:" in printed.err and printed.err.count("broken.jpg") == 2
    assert "[2/2] 2 dogs, sky →" in printed.out
    assert len(json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"]) == 1


def test_outputs_keep_the_paths_of_a_folder(photo: Path, tmp_path: Path) -> None:
    """Derived by hand: below the output folder there is the tree of the input folder, also on a second run into it."""
    folder = tmp_path / "in"
    for below in ("a/1.jpg", "b/deep/1.jpg"):
        (folder / below).parent.mkdir(parents=True, exist_ok=True)
        (folder / below).write_bytes(photo.read_bytes())
    for more in ((), ("--overwrite",)):
        assert _run(folder, output=folder / "out", more=("--recursive", *more)) == 0
    names = sorted(path.relative_to(folder / "out").as_posix() for path in folder.glob("out/**/*.png"))
    assert names == ["a/1.png", "b/deep/1.png", "panoptic/a/1.png", "panoptic/b/deep/1.png"]
    content = json.loads((folder / "out" / "panoptic.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a/1.jpg", "b/deep/1.jpg"]


def test_a_folder_that_cannot_be_listed_is_listed_at_the_end(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Error: it costs its own files and the exit status; the one picture beside it is done."""
    found = predict_run.find_inputs([str(photo)])
    found.unreadable.append("x: the folder cannot be listed")
    monkeypatch.setattr(predict_run, "find_inputs", lambda *args, **kwargs: found)
    assert _run(photo, output=tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "1 of 2 inputs could not be predicted:\n  x: the folder cannot be listed" in printed.err
    assert "2 dogs, sky →" in printed.out


def test_what_was_skipped_is_the_last_line(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Derived by hand: of a folder one picture and two files that are none; that costs no status."""
    for name in ("notes.txt", ".DS_Store"):
        (tmp_path / name).write_text("")
    assert _run(tmp_path, output=tmp_path / "out") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "2 files skipped: 1 .txt, 1 hidden"


@pytest.fixture
def three(photo: Path, tmp_path: Path) -> Path:
    """A folder of a.jpg, b.jpg and c.jpg."""
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.jpg").write_bytes(photo.read_bytes())
    return tmp_path / "in"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), MemoryError(), OSError(errno.EIO, "x")])
def test_whatever_a_picture_does_the_others_are_done(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """Error: the model fails on the second of three pictures: it is named, twice, with what it was."""
    forward, calls = TwoDogsAndSky.forward, [1, 2, 3]

    def fails(self: TwoDogsAndSky, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if calls.pop(0) == 2:
            raise error
        return forward(self, batch)

    monkeypatch.setattr(TwoDogsAndSky, "forward", fails)
    assert _run(three, output=tmp_path / "out") == 1
    assert capsys.readouterr().err.count(f"b.jpg: {type(error).__name__}: ") == 2
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "c.jpg"]


def test_a_name_that_moves_the_cursor(three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks and escapes in the names of a picture, a broken one and a file that is none: each is one plain line,
    the broken picture's twice, that a line of the report."""
    (three / "a.jpg").rename(three / "a\n\x1b[2J.jpg")
    (three / "b.jpg").rename(three / "b\n\x1b[2J.jpg")
    (three / "b\n\x1b[2J.jpg").write_bytes(b"")
    (three / "d.x\n\x1b[2J").write_bytes(b"")
    assert _run(three, output=tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert [line[:5] for line in printed.out.splitlines()] == ["[1/3]", "[3/3]"]
    assert printed.err.count(r"b\n\x1b[2J.jpg") == 2 and len(printed.err.splitlines()) == 4


@pytest.mark.parametrize("place", ["b.png", "panoptic/b.png"])
def test_a_folder_in_the_place_of_a_result(three: Path, tmp_path: Path, place: str) -> None:
    """Error: it costs that result; what could not be written is in no list."""
    (tmp_path / "out" / place / "x").mkdir(parents=True)
    assert _run(three, output=tmp_path / "out", more=("--overwrite",)) == 1
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    for entries in (content["images"], content["annotations"]):
        assert [entry["file_name"][0] for entry in entries] == ["a", "c"]


def test_a_full_disk_ends_the_run(three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: one line about the second picture; the third is not tried, the first is kept."""
    save, calls = Image.Image.save, [1, 2]

    def fails(image: Image.Image, path: Path) -> None:
        if calls.pop(0) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, path)

    monkeypatch.setattr(Image.Image, "save", fails)
    with pytest.raises(UserError, match=r"cannot write .*b\.png: No space left on device"):
        _run(three, output=tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "panoptic.json").read_text())["images"]) == 1


def test_an_output_that_is_a_file(photo: Path, tmp_path: Path) -> None:
    """Error: no picture is looked at."""
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot write to --output"):
        _run(photo, output=tmp_path / "out")


def test_names_as_long_as_they_can_be(photo: Path, tmp_path: Path) -> None:
    """Edge case: 255 bytes; so is the result's name."""
    (tmp_path / "in").mkdir()
    photo.rename(tmp_path / "in" / ("m" * 251 + ".jpg"))
    write_video(tmp_path / "in" / ("v" * 251 + ".avi"), frames=1)
    assert _run(tmp_path / "in", output=tmp_path / "out") == 0
    assert (tmp_path / "out" / ("m" * 251 + ".png")).is_file() and len(list((tmp_path / "out").glob("v*.jsonl"))) == 1


def test_an_input_is_not_overwritten(tmp_path: Path) -> None:
    """Error: results of a.png that would be written as a.png beside it, over it."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(UserError, match=r"would overwrite the input .*a\.png; choose another folder"):
        _run(tmp_path / "a.png", output=tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("task", ["panoptic", "semantic", "instance"])
def test_results_that_are_there_are_kept_unless_asked(photo: Path, tmp_path: Path, task: str) -> None:
    """Refused: the whole of an earlier run, counted, and of another picture what is about them all."""
    out = tmp_path / "out"
    assert _run(photo, output=out, more=("--task", task)) == 0
    count = sum(path.is_file() for path in out.rglob("*"))
    with pytest.raises(UserError, match=rf"would replace {count} files, .*out/photo\.png the first .* add --overwrite"):
        _run(photo, output=out, more=("--task", task))
    other = tmp_path / "other.jpg"
    other.write_bytes(photo.read_bytes())
    with pytest.raises(UserError, match=r"would replace .*\.json"):
        _run(other, output=out, more=("--task", task))
    assert not (out / "other.png").exists()
    assert _run(photo, output=out, more=("--task", task, "--overwrite")) == 0


def test_shipped_vocabularies_are_found_by_name(photo: Path, tmp_path: Path) -> None:
    """Each name of the help is a list; a class of that name is still asked for with a suffix."""
    for name in predict.VOCABULARIES:
        assert f" {name}" in (predict.__doc__ or "")
        assert len(parse_vocabulary(resource(f"configs/vocabularies/{name}.txt"))) >= 20
    assert _run(photo, output=tmp_path / "list", more=("--vocabulary", "coco")) == 0
    assert len(json.loads((tmp_path / "list" / "panoptic.json").read_text())["categories"]) == 133
    assert _run(photo, output=tmp_path / "word", more=("--vocabulary", "coco:thing; sky:stuff")) == 0
    assert len(json.loads((tmp_path / "word" / "panoptic.json").read_text())["categories"]) == 2


def test_two_results_of_one_name_are_refused(photo: Path, tmp_path: Path) -> None:
    """Error: the picture of panoptic/1.jpg and the id map of 1.jpg are one file."""
    (tmp_path / "panoptic").mkdir()
    for below in ("1.jpg", "panoptic/1.jpg"):
        (tmp_path / below).write_bytes(photo.read_bytes())
    with pytest.raises(UserError, match=r"would both write .*panoptic/1\.png"):
        _run(tmp_path / "1.jpg", tmp_path / "panoptic" / "1.jpg", output=tmp_path / "out")


def test_semantic_results_are_indices_and_their_classes(photo: Path, tmp_path: Path) -> None:
    """Derived by hand: the outer columns are class 0, dog, the rest class 1, sky; areas and boxes as drawn."""
    out = tmp_path / "out"
    assert _run(photo, output=out, more=("--task", "semantic")) == 0
    labels = np.asarray(Image.open(out / "semantic" / "photo.png"))
    assert labels.dtype == np.uint8 and (labels[:, 1:-1] == 1).all() and not labels[:, [0, -1]].any()
    content = json.loads((out / "semantic.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["dog", "sky"]
    found = {segment["category_id"]: segment for segment in content["annotations"][0]["segments_info"]}
    assert found[7]["area"] == 20 and found[7]["bbox"] == [0, 0, 20, 10] and "score" not in found[7]
    assert found[9]["area"] == 180


def test_semantic_results_are_label_maps_our_reader_takes(photo: Path, tmp_path: Path) -> None:
    """Round trip: with the words as a file, what is written can be trained and evaluated on."""
    out, words = tmp_path / "out", tmp_path / "words.txt"
    words.write_text("dog; sky:stuff")
    (tmp_path / "in").mkdir()
    photo.rename(tmp_path / "in" / photo.name)
    _run(tmp_path / "in", output=out, more=("--task", "semantic", "--vocabulary", str(words)))
    spec = label_maps_spec("mine", images=tmp_path / "in", labels=out / "semantic", classes=words)
    (record,) = spec.load()
    classes, masks, _ = read_segments(record)
    assert classes.tolist() == [0, 1] and masks.flatten(1).sum(1).tolist() == [20, 180]


def test_instances_are_coco_results(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equality with pycocotools: it loads both files, and decodes the two masks of 10 and 20 pixels."""
    from pycocotools.coco import COCO

    out = tmp_path / "out"
    assert _run(photo, output=out, more=("--task", "instance", "--confidence-threshold", "0.2")) == 0
    assert "2 dogs →" in capsys.readouterr().out
    results = COCO(str(out / "images.json")).loadRes(str(out / "instances.json"))
    assert [annotation["category_id"] for annotation in results.dataset["annotations"]] == [7, 7]
    masks = [results.annToMask(annotation) for annotation in results.dataset["annotations"]]
    assert [int(mask.sum()) for mask in masks] == [10, 20] and masks[0][:, 0].all()
    assert [annotation["bbox"] for annotation in results.dataset["annotations"]] == [[0, 0, 1, 10], [18, 0, 2, 10]]


def test_weak_instances_are_left_out_by_default(photo: Path, tmp_path: Path) -> None:
    """Derived by hand: of the scores 0.9 and 0.3 the default of 0.5 keeps one."""
    _run(photo, output=tmp_path / "out", more=("--task", "instance"))
    assert [entry["score"] for entry in json.loads((tmp_path / "out" / "instances.json").read_text())] == [
        pytest.approx(0.9)
    ]


@pytest.mark.parametrize("task", ["panoptic", "semantic", "instance"])
def test_a_video_becomes_a_video_and_a_line_for_each_frame(tmp_path: Path, task: str) -> None:
    """Derived by hand: 5 frames at 10 per second; each line has its time and masks that decode to the frame's size."""
    write_video(tmp_path / "clip.avi", frames=5)
    out = tmp_path / "out"
    assert _run(tmp_path / "clip.avi", output=out, more=("--task", task)) == 0
    with VideoReader(out / "clip.mp4") as video:
        assert video.fps == pytest.approx(10) and len(list(video)) == 5
    header, *lines = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
    assert header["video"] == "clip.avi" and header["fps"] == 10 and header["categories"][0]["name"] == "dog"
    assert [(line["frame"], line["time"]) for line in lines] == [(i, i / 10) for i in range(5)]
    areas = [int(codec.area(segment["segmentation"])) for segment in lines[4]["segments"]]
    assert areas == {"panoptic": [48, 48 * 62, 48], "semantic": [96, 48 * 62], "instance": [48]}[task]


def test_a_frame_that_fails_ends_its_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Error: at frame 2 of the first video, whose two frames are kept, and at frame 0 of the second, of which nothing
    is; the third is done."""
    for name in "abc":
        write_video(tmp_path / f"{name}.avi", frames=3)
    forward, calls = TwoDogsAndSky.forward, [*"kkxxkkk"]

    def fails(self: TwoDogsAndSky, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if calls.pop(0) == "x":
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, batch)

    monkeypatch.setattr(TwoDogsAndSky, "forward", fails)
    assert _run(tmp_path / "a.avi", tmp_path / "b.avi", tmp_path / "c.avi", output=tmp_path / "out") == 1
    lines = {path.stem: len(path.read_text().splitlines()) - 1 for path in (tmp_path / "out").glob("*.jsonl")}
    assert lines == {"a": 2, "c": 3} and not (tmp_path / "out" / "b.mp4").exists()
    assert "a.avi: OutOfMemoryError: out of memory (frame 2)" in capsys.readouterr().err


def test_a_broken_video_keeps_what_was_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Error: a cut video and a text called .mp4 are named; exit status 1; the frames before the cut are there."""
    write_video(tmp_path / "cut.avi", frames=20)
    content = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    assert _run(tmp_path / "cut.avi", tmp_path / "text.mp4", output=tmp_path / "out") == 1
    printed = capsys.readouterr().err
    assert "text.mp4 cannot be read as a video" in printed
    if "cut.avi" not in printed:  # the container's own count may be gone with the cut
        assert (tmp_path / "out" / "cut.jsonl").is_file()


def test_a_signal_ends_the_run_and_keeps_what_was_done(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT during the first of two pictures: it is finished and its JSON written, the other is left out."""
    second = tmp_path / "second.jpg"
    second.write_bytes(photo.read_bytes())
    forward = TwoDogsAndSky.forward

    def interrupted(self: TwoDogsAndSky, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        signal.raise_signal(signal.SIGINT)
        return forward(self, batch)

    monkeypatch.setattr(TwoDogsAndSky, "forward", interrupted)
    with pytest.raises(Interrupted, match="what was done is in") as caught:
        _run(photo, second, output=tmp_path / "out")
    assert caught.value.signum == signal.SIGINT
    assert len(json.loads((tmp_path / "out" / "panoptic.json").read_text())["images"]) == 1


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


def test_exit_statuses() -> None:
    """Derived by hand: what `main` returns; 2 for a user's mistake; 130 for Ctrl-C while the model is still built."""

    def fails(error: BaseException) -> int:
        raise error

    assert run_tool(lambda: 1) == 1 and run_tool(lambda: {}) == 0
    assert run_tool(lambda: fails(UserError("x"))) == 2
    assert run_tool(lambda: fails(KeyboardInterrupt())) == 130


def test_nothing_found_is_said() -> None:
    """Edge case: an image of void, and words with irregular plurals."""

    def described(segments: list[dict[str, Any]], vocabulary: Vocabulary) -> str:
        return Prediction(torch.zeros(3, 1, 1), "", vocabulary, panoptic_seg=(torch.zeros(1, 1), segments)).describe()

    assert described([], VOCABULARY) == "nothing found"
    crosses = [{"category_id": 0}, {"category_id": 0}]
    assert described(crosses, (Category("red cross", ("red cross",)),)) == "2 red crosses"
