"""detectron2-sam fewshot: from two folders to a report and an adapter, what it goes on with, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.data.worms import write_worms
from amsam.evaluation import means, read_scores
from amsam.predictor import Predictor
from detectron2_sam.commands import fewshot, predict
from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.fewshot.plan import default_config
from sam_common.boxes import detectors
from sam_common.boxes.boxes import Boxes
from sam_common.errors import Interrupted, UserError
from sam_common.io.weights import OFFICIAL, OfficialFile

QUICK = ["MODEL.DEVICE", "cpu", "MODEL.AMSAM.IMAGE_SIZE", "64", "SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "1"]


@pytest.fixture(scope="module")
def worms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures."""
    root = tmp_path_factory.mktemp("worms")
    write_worms(root, seed=0, first_index=0, count=6, size=64)
    return root


def run(folder: Path, output: Path, *more: str, options: list[str] = QUICK) -> None:
    given = ["--images", str(folder / "images"), "--masks", str(folder / "masks"), "--output", str(output)]
    fewshot.main([*given, "--config-file", "configs/amsam_T.yaml", *options, *more])


@pytest.fixture(scope="module")
def done(worms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two seeds of two shots leave."""
    output = tmp_path_factory.mktemp("done") / "out"
    run(worms, output, "--shots", "2", "--seeds", "2", "--boxes", "ground_truth")
    return output


def results(output: Path) -> dict[str, Any]:
    return json.loads((output / "results.json").read_text())


def test_the_numbers_are_those_of_the_images(done: Path) -> None:
    """Per seed the means of its CSV, which lacks its shots; over seeds their mean and sample standard deviation."""
    found = results(done)
    dices = []
    for seed in found["seeds"]:
        file = done / f"seed{seed['seed']}" / "inference" / "few_shot_test" / "dice_per_image.csv"
        scores = read_scores(file)
        assert len(scores) == 4 and not set(seed["shots"]) & set(scores)
        dices.append(means(scores.values(), ["object"])["Dice"])
        assert seed["test"]["AM-SAM"]["Dice"] == pytest.approx(dices[-1])
    summary = found["over_seeds"]["AM-SAM"]["Dice"]
    assert summary["mean"] == pytest.approx(np.mean(dices)) and summary["sd"] == pytest.approx(np.std(dices, ddof=1))
    assert found["seeds"][0]["shots"] != found["seeds"][1]["shots"]


def test_the_baselines_are_of_the_same_images(done: Path) -> None:
    """The bare box of each seed, from one evaluation: the mean over the images that this seed is tested on."""
    found = results(done)
    scores = read_scores(done / "baselines" / "BoxRectangle" / "inference" / "few_shot_test" / "dice_per_image.csv")
    for seed in found["seeds"]:
        mine = means((value for name, value in scores.items() if name not in seed["shots"]), ["object"])
        assert seed["test"]["the box itself"]["Dice"] == pytest.approx(mine["Dice"])
    assert "SAM as it is, told the box" in found["over_seeds"]


def test_the_adapter_is_the_best_by_validation(done: Path, worms: Path) -> None:
    """Small; it labels as the weights of that seed do, and the printed command's tool takes it."""
    found = results(done)
    validations = [seed["validation_dice"] for seed in found["seeds"]]
    best = found["best_by_validation"]
    assert validations[best] == max(validations)
    adapter = done / "adapter.safetensors"
    assert adapter.stat().st_size < 3_000_000
    learned = torch.load(done / f"seed{best}" / "model_best.pth", weights_only=True)["model"]
    predictor = Predictor.from_adapter(adapter)
    state = predictor.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in learned.items())
    arguments = ["--adapter", str(adapter), "--input", str(worms / "images" / "000000.jpg")]
    assert predict.main([*arguments, "--output", str(done.parent / "labels")]) == 0


def test_the_report_shows_the_worst_images(done: Path) -> None:
    """All four tested ones, three pictures each, which the folder holds too; the two baselines stand beside."""
    page = (done / "report.html").read_text()
    assert page.count("<figure class=") == 4 + 1  # and the losses
    assert len(list((done / "worst").iterdir())) == 12
    assert "the box itself" in page and "generated pictures only" in page


def test_an_interrupted_run_goes_on(
    done: Path, worms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in the second seed, then asked for the first one alone, then for both, twice: the numbers of one run."""
    command = ("--shots", "2", "--seeds", "2", "--boxes", "ground_truth")
    original, calls = train_net.main, Counter[str]()

    def stop_in_seed1(argv: list[str]) -> dict[str, Any]:
        calls["train"] += 1
        if calls["train"] == 2:
            raise Interrupted("stopped after iteration 1", signal.SIGINT)
        return original(argv)

    monkeypatch.setattr(train_net, "main", stop_in_seed1)
    with pytest.raises(Interrupted, match="the same command goes on"):
        run(worms, tmp_path / "out", *command)
    run(worms, tmp_path / "out", *command, "--seeds", "1")
    run(worms, tmp_path / "out", *command)
    assert results(tmp_path / "out") == results(done)
    count = calls["train"]
    capsys.readouterr()
    run(worms, tmp_path / "out", *command)
    assert calls["train"] == count and "is complete" in capsys.readouterr().out
    assert results(tmp_path / "out") == results(done)


def test_another_command_does_not_mix(done: Path, worms: Path, tmp_path: Path) -> None:
    """Refused: the folder of a command with other shots, and a folder of something else."""
    with pytest.raises(UserError, match=r"another command \(shots was 2, is 3\)"):
        run(worms, done, "--shots", "3", "--boxes", "ground_truth")
    with pytest.raises(UserError, match="IMAGE_SIZE is 17"):
        run(worms, tmp_path / "out", "--shots", "2", "--seeds", "1", "MODEL.AMSAM.IMAGE_SIZE", "17")
    with pytest.raises(UserError, match="IMAGE_SIZE is 18"):  # nothing was trained, so it may be mended
        run(worms, tmp_path / "out", "--shots", "2", "--seeds", "1", "MODEL.AMSAM.IMAGE_SIZE", "18")
    (tmp_path / "out" / "fewshot.json").write_text("[]")
    with pytest.raises(UserError, match=r"fewshot\.json is damaged"):
        run(worms, tmp_path / "out", "--shots", "2")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no few-shot run"):
        run(worms, tmp_path, "--shots", "2")


def test_a_detector_looks_at_each_image_once(
    worms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it finds nothing, or what is no number: then the whole image is the box, which is counted and told."""
    monkeypatch.setattr(detectors, "_MAKERS", dict(detectors._MAKERS))
    seen = Counter[str]()

    def detect(image: torch.Tensor) -> Boxes:
        seen["images"] += 1
        box = [[5.0, 5, 40, 40], [float("nan")] * 4, [90.0, 90, 99, 99]][min(2, seen["images"] // 5)]
        return Boxes(torch.tensor([box]), torch.ones(1))

    detectors.register_detector("stub", lambda weights, device: detect)
    run(worms, tmp_path / "out", "--shots", "2", "--seeds", "1", "--pool", "4", "--boxes", "stub")
    assert seen["images"] == 6  # two of them tested, and both without a box
    said = capsys.readouterr().out
    assert "stub has a box for 4 of 6 images" in said and "images without a box: 100.0 %" in said
    assert results(tmp_path / "out")["over_seeds"]["AM-SAM"]["no_box"]["mean"] == 100
    assert "--detector stub" in said


def labelled(root: Path, *values: int) -> Path:
    """Images 1, 2, … of 32×32 pixels, with a square of these values in their masks."""
    for stem, value in enumerate(values, start=1):
        pixels, mask = np.full((32, 32, 3), 60, np.uint8), np.zeros((32, 32), np.uint8)
        pixels[4:20, 4:20], mask[4:20, 4:20] = 40 + value % 200, value
        for role, content in (("images", pixels), ("masks", mask)):
            (root / role).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(root / role / f"{stem}.png")
    return root


def test_boxes_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """COCO results serve as they are; a file for other images, or none, is told before anything is trained."""
    folder, boxes = labelled(tmp_path, 1, 1, 1, 1), tmp_path / "boxes.json"
    more = ("--shots", "2", "--seeds", "1", "--pool", "2", "--boxes", str(boxes))
    with pytest.raises(UserError, match=r"boxes\.json"):
        run(folder, tmp_path / "out", *more)
    boxes.write_text(json.dumps([{"image_id": "street", "bbox": [4, 4, 16, 16]}]))
    with pytest.raises(UserError, match=r"boxes\.json has no boxes for --images"):
        run(folder, tmp_path / "out", *more)
    entries = [{"image_id": name, "bbox": [4, 4, 16, 16], "score": score} for name, score in (("3", 0.9), ("4", 0.1))]
    boxes.write_text(json.dumps(entries))
    run(folder, tmp_path / "out", *more)
    assert "has a box for 1 of 4 images" in capsys.readouterr().out
    found = results(tmp_path / "out")["over_seeds"]
    assert found["the box itself"]["Dice"]["mean"] == pytest.approx(100 * (1 + 2 / 5) / 2)  # 256 of 1,024 pixels
    assert found["AM-SAM"]["no_box"]["mean"] == 50


def test_several_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has its Dice; one that the shots do not show is told by name; empty masks are tested on, never drawn."""
    folder = labelled(tmp_path, 1, 1, 2, 0, 2, 1)
    (tmp_path / "classes.txt").write_text("ball\nbox\n")
    more = ("--shots", "2", "--seeds", "1", "--pool", "2", "--classes", str(tmp_path / "classes.txt"))
    run(folder, tmp_path / "out", *more)
    said = capsys.readouterr()
    assert "masks of 1 images show nothing; they are tested on, never drawn: 4" in said.out
    assert re.search(r"ball \d+\.\d; box \d+\.\d", said.out)
    assert "warning: half 1 of the shots, which teaches the weights, does not show box" in said.err
    found = results(tmp_path / "out")
    assert {"Dice-ball", "Dice-box"} <= found["over_seeds"]["AM-SAM"].keys()
    assert Predictor.from_adapter(tmp_path / "out" / "adapter.safetensors").classes == ["ball", "box"]


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        ((1, 1, 1), ("--shots", "3"), r"--shots 3: 2 of 3 images may be drawn, one is left"),
        ((1, 1, 1), ("--shots", "1"), r"--shots 1: .* give 2 to 2"),
        ((1, 0, 0, 1), ("--pool", "3"), r"--shots 2: 1 of 4 images may be drawn \(2 masks show nothing: 2, 3\)"),
        ((0, 0, 0), (), r"0 of 3 images may be drawn \(3 masks show nothing: 1, 2, 3\)"),
        ((1, 1, 1), ("--pool", "3"), "--pool 3: of 3 images none is left to test on"),
        ((1, 7, 1, 9), (), r"2 of 4 masks cannot be used: .*2\.png has pixels of the value 7; .*4\.png has"),
        ((1, 1, 1), ("SEED", "3"), "SEED is set by --seeds; leave it out"),
        ((1, 1, 1), ("DATASETS.SHOTS", "3"), "DATASETS.SHOTS is set by --images, --masks, --shots and --pool"),
        ((1, 1, 1), ("--masks", "nowhere"), r"--masks .*nowhere is no folder"),
        ((1, 1, 1), ("--seeds", "0"), "--seeds is 0; give at least 1"),
        ((1, 1, 1), ("--boxes", "no_such"), "there is no detector 'no_such'"),
        ((1, 1, 1), ("--classes", "none.txt"), r"none\.txt"),
        ((1, 1, 1), ("--config-file", "configs/plug_T.yaml"), "is for PLUG; give one of AMSAM"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: tuple[int, ...], more: tuple[str, ...], message: str
) -> None:
    """One line each."""
    monkeypatch.setattr(train_net, "main", lambda argv: pytest.fail("a training began"))
    with pytest.raises(UserError, match=message) as error:
        run(labelled(tmp_path, *values), tmp_path / "out", "--shots", "2", *more, options=[])
    assert "\n" not in str(error.value)


def test_lonely_files_and_other_shapes(tmp_path: Path) -> None:
    """All named: images without masks, masks without images, masks of another shape."""
    folder = labelled(tmp_path, 1, 1, 1, 1)
    Image.new("L", (32, 16)).save(folder / "masks" / "2.png")
    with pytest.raises(UserError, match=r"1 of 4 masks cannot be used: .*2\.png is 32×16 but its image is 32×32"):
        run(folder, tmp_path / "out", "--shots", "2")
    (folder / "masks" / "1.png").unlink()
    shutil.move(folder / "images" / "3.png", folder / "images" / "5.png")
    with pytest.raises(UserError, match=r"2 have no masks: .*1\.png, .*5\.png; 1 have no images: .*3\.png"):
        run(folder, tmp_path / "out", "--shots", "2")


def test_sam_is_the_real_one_where_its_weights_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --config-file: ViT-B where its file lies in the cache, the tiny one elsewhere; nothing is downloaded. A
    file that is another one is told at once."""
    monkeypatch.setenv("DETECTRON2_SAM_CACHE", str(tmp_path))
    published = OfficialFile("https://example.org/sam_vit_b_01ec64.pth", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(OFFICIAL, "sam_vit_b", published)
    assert default_config() == "configs/amsam_T.yaml"
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"weights")
    assert default_config() == "configs/amsam_B.yaml"
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"<html>")
    with pytest.raises(UserError, match="sam_vit_b_01ec64.pth is damaged.*delete it"):
        default_config()


def test_what_is_killed_while_it_looks_for_boxes_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worms: Path
) -> None:
    """Before the first training too, and beside half a file that it was writing."""
    output = tmp_path / "out"
    output.mkdir()
    (output / ".fewshot.x7.json").write_text("{")
    command = ("--shots", "2", "--seeds", "1", "--boxes", "opencv_hog_people")

    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(train_net, "main", kill)
    for _ in range(2):
        with pytest.raises(Killed):
            run(worms, output, *command)
    assert (output / "boxes.json").is_file()


def test_no_boxes_at_all(worms: Path, tmp_path: Path) -> None:
    """The published method without its detector: there is no box to compare with, and the table is of the model."""
    run(worms, tmp_path / "out", "--shots", "2", "--seeds", "1", "INPUT.BOXES.SELECT", "none")
    assert results(tmp_path / "out")["over_seeds"].keys() == {"AM-SAM"}


@pytest.mark.parametrize("role", ["images", "masks"])
def test_results_do_not_go_among_the_pictures(tmp_path: Path, role: str) -> None:
    """The same command again would take them for pictures."""
    with pytest.raises(UserError, match=f"lies in --{role}, which it would fill"):
        run(labelled(tmp_path, 1, 1, 1), tmp_path / role / "out", "--shots", "2")


def test_numbers_are_of_the_files_as_they_are(tmp_path: Path) -> None:
    """A mask that was mended since is told, and earlier numbers are not given for it."""
    folder = labelled(tmp_path, 1, 1, 1)
    run(folder, tmp_path / "out", "--shots", "2", "--seeds", "1")
    Image.new("L", (32, 32), 1).save(folder / "masks" / "2.png")
    with pytest.raises(UserError, match=r"another command \(content of masks was"):
        run(folder, tmp_path / "out", "--shots", "2", "--seeds", "1")


def test_the_command_that_comes_next_looks_into_subfolders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the images lie in some, it would find none without."""
    folder = labelled(tmp_path, 1, 1, 1)
    for role in ("images", "masks"):
        (folder / role).rename(folder / "inner")
        (folder / role).mkdir()
        (folder / "inner").rename(folder / role / "a")
    run(folder, tmp_path / "out", "--shots", "2", "--seeds", "1")
    (command,) = (line for line in capsys.readouterr().out.splitlines() if "detectron2-sam predict" in line)
    assert predict.main(shlex.split(command)[2:]) == 0
