"""What users give that is strange or wrong, through the real readers, tools and a tiny PosSAM with random weights.

Strange pictures are predicted all the same; what is wrong ends in one line that names it, never in a traceback.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amsam.adapter import read_adapter
from detectron2_sam.commands import predict
from detectron2_sam.commands import train as train_net
from detectron2_sam.commands.predict.inputs import find_inputs
from possam.clip_encoder import build_clip
from possam.data.coco_instance import coco_instance_spec
from possam.data.mapper import SegmentationMapper
from possam.data.segments import read_targets
from possam.predictor import Predictor
from sam_common.boxes.box_files import read_box_file
from sam_common.boxes.detectors import build_box_source
from sam_common.boxes.ultralytics_detector import read_yolo
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_image, write_segment_ids
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.engine.checkpoint import frozen_sha256, read_checkpoint, trained_state
from sam_common.errors import UserError
from sam_common.evaluation.panoptic_quality import PanopticQualityEvaluator
from sam_common.io.pictures import MAX_PIXELS, MAX_PIXELS_VARIABLE
from sam_common.io.plain_pickle import read_plain_pickle
from sam_common.io.weights import read_weights
from sam_common.structures import Category
from tests.support.segments import read_segments

CONFIG = "configs/possam_T.yaml"
TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.SAM.WEIGHTS": "random",
    "MODEL.CLIP.WEIGHTS": "random",
    "MODEL.POSSAM.NUM_QUERIES": "5",
    "MODEL.POSSAM.TEST.INSTANCE_ON": "True",
    "MODEL.POSSAM.LOSS.NUM_POINTS": "16",
    "INPUT.IMAGE_SIZE": "64",
    "INPUT.MIN_SIZE_TEST": "64",
    "INPUT.MAX_SIZE_TEST": "64",
}
OPTIONS = [word for pair in TINY.items() for word in pair]
VOCABULARY = (Category("dog", ("dog",), True, 3), Category("sky", ("sky",), False, 9))


def build(weights: str = "random", config: str | Path = CONFIG) -> Predictor:
    return Predictor.from_config(config, weights=weights, options=OPTIONS)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return build()


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# --- pictures


def test_empty_file(predictor: Predictor, tmp_path: Path) -> None:
    """Error: a file of no bytes is named."""
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.jpg cannot be read as an image") as error:
        predictor(tmp_path / "empty.jpg", VOCABULARY)
    one_line(error)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


STRANGE: dict[str, tuple[Image.Image, str, dict[str, Any], tuple[int, int]]] = {
    "1x1": (Image.new("RGB", (1, 1)), "png", {}, (1, 1)),
    "greyscale": (Image.new("L", (40, 30), 99), "png", {}, (30, 40)),
    "grey with alpha": (Image.new("LA", (40, 30), (99, 0)), "png", {}, (30, 40)),
    "RGBA": (Image.new("RGBA", (40, 30), (9, 99, 199, 7)), "png", {}, (30, 40)),
    "CMYK": (Image.new("CMYK", (40, 30), (9, 99, 199, 7)), "jpg", {}, (30, 40)),
    "16-bit": (Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "png", {}, (30, 40)),
    "palette": (Image.new("P", (40, 30)), "gif", {}, (30, 40)),
    "EXIF-rotated": (Image.new("RGB", (40, 30)), "jpg", {"exif": _exif(6)}, (40, 30)),
    "12,000 pixels wide": (Image.new("1", (12_000, 10)), "png", {}, (10, 12_000)),
    "absurdly long": (Image.new("1", (1, 50_000)), "png", {}, (50_000, 1)),
}


@pytest.mark.parametrize(("image", "suffix", "options", "size"), STRANGE.values(), ids=STRANGE)
def test_strange_pictures_are_predicted(
    predictor: Predictor,
    tmp_path: Path,
    image: Image.Image,
    suffix: str,
    options: dict[str, Any],
    size: tuple[int, int],
) -> None:
    """Invariant: every kind of picture gets an id map of its own (upright) size, every id of which is listed."""
    image.save(tmp_path / f"a.{suffix}", **options)
    result = predictor(tmp_path / f"a.{suffix}", VOCABULARY)
    ids, segments = result.panoptic_seg
    assert tuple(ids.shape) == size == result.instances.image_size
    assert set(ids.unique().tolist()) <= {0, *(segment["id"] for segment in segments)}


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    """Derived by hand: 16 bits keep their upper eight (40,000 / 256 = 156), and alpha is left out."""
    for name, value in (("16-bit", 156), ("grey with alpha", 99)):
        image, *_ = STRANGE[name]
        image.save(tmp_path / "a.png")
        assert (read_image(tmp_path / "a.png") == value).all(), name


def test_the_pixel_cap_says_how_to_raise_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derived by hand: 12,000 × 12,000 is below the cap; a file of 19 bytes that says 20,000 × 20,000 is refused, not
    decoded; the message's own advice lets it be read."""
    assert MAX_PIXELS >= 12_000 * 12_000
    (tmp_path / "bomb.pgm").write_bytes(b"P5 20000 20000 255\n")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"20000 × 20000 = 400,000,000 pixels, more than the cap") as error:
        read_image(tmp_path / "bomb.pgm")
    assert MAX_PIXELS_VARIABLE in one_line(error)
    monkeypatch.undo()
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "400000000")
    with pytest.raises(UserError, match="may be truncated"):
        read_image(tmp_path / "bomb.pgm")
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(UserError, match=f"{MAX_PIXELS_VARIABLE} is 'many'"):
        read_image(tmp_path / "bomb.pgm")


# --- annotations


def panoptic_tree(folder: Path, change: Callable[[dict[str, Any]], object] = lambda content: None) -> DatasetSpec:
    """One image, 12 × 8: a dog (segment 1) left, sky (segment 2) right; `change` is made to the JSON."""
    for name in ("images", "masks"):
        (folder / name).mkdir(exist_ok=True)
    Image.new("RGB", (12, 8)).save(folder / "images" / "a.png")
    ids = torch.ones(8, 12, dtype=torch.int32)
    ids[:, 6:] = 2
    write_segment_ids(folder / "masks" / "a.png", ids)
    segments = [{"id": 1, "category_id": 3, "iscrowd": 0}, {"id": 2, "category_id": 9, "iscrowd": 0}]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 12}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 3, "name": "dog", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}],
    }
    change(content)
    (folder / "panoptic.json").write_text(json.dumps(content))
    return coco_panoptic_spec(
        "bad", json_file=folder / "panoptic.json", images=folder / "images", panoptic=folder / "masks"
    )


def test_image_without_objects(tmp_path: Path) -> None:
    """Edge case: nothing is annotated. The real model and losses take it: finite, and all queries learn void."""
    spec = panoptic_tree(tmp_path, lambda content: None)
    write_segment_ids(tmp_path / "masks" / "a.png", torch.zeros(8, 12, dtype=torch.int32))
    sizes = {"image_size": 64, "min_scale": 1.0, "max_scale": 1.0, "min_size_test": 64, "max_size_test": 64}
    mapper = SegmentationMapper(spec.load_vocabulary(), training=True, flip=False, color=False, **sizes)
    item = mapper(spec.load()[0] | {"segments_info": []})
    assert len(item["segments"]) == 0
    model = build().model.train()
    losses = model([item])
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_segment_without_pixels(tmp_path: Path) -> None:
    """Derived by hand: a listed segment that the PNG does not show (ADE20K has some) is no target; against a perfect
    prediction it is one miss of its class, as in the reference evaluation: PQ of dog 1 / (1 + ½)."""
    extra = {"id": 77, "category_id": 3, "iscrowd": 0}
    spec = panoptic_tree(tmp_path, lambda content: content["annotations"][0]["segments_info"].append(extra))
    (record,) = spec.load()
    assert read_segments(record)[1].flatten(1).sum(1).tolist() == [48, 48, 0]
    assert read_targets(record, lambda layer: layer)[0].tolist() == [0, 1]
    evaluator = PanopticQualityEvaluator(spec, output_dir=tmp_path / "out")
    ids = torch.ones(8, 12, dtype=torch.int32)
    ids[:, 6:] = 2
    segments = [{"id": i + 1, "category_id": i, "isthing": i == 0, "score": 1.0} for i in range(2)]
    evaluator.process([{"image_id": 1}], [{"panoptic_seg": (ids, segments)}])
    metrics = evaluator.evaluate()["panoptic_seg"]
    assert metrics["PQ-dog"] == pytest.approx(200 / 3) and metrics["PQ-sky"] == 100


def test_boxes_outside(tmp_path: Path) -> None:
    """Derived by hand: of a square half outside the image the inner 2 × 4 pixels are the mask; one that lies outside
    altogether has no pixel and is left out."""
    (tmp_path / "a.png").write_bytes(b"")
    squares = [[10, 2, 14, 2, 14, 6, 10, 6], [20, 20, 24, 20, 24, 24, 20, 24]]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 3, "bbox": [*square[:2], 4, 4], "area": 16, "segmentation": [square]}
        for i, square in enumerate(squares)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 12}],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "dog"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    (record,) = coco_instance_spec("bad", json_file=tmp_path / "instances.json", images=tmp_path).load()
    _, masks, _ = read_segments(record)
    assert masks[0, 2:6, 10:].all() and masks.flatten(1).sum(1).tolist() == [8]
    classes, targets = read_targets(record, lambda layer: layer)
    assert len(classes) == len(targets) == 1


WRONG_JSON: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "duplicate image ids": (
        lambda content: content["images"].append(content["images"][0]),
        "two entries of images have the id 1",
    ),
    "undefined category id": (
        lambda content: content["annotations"][0]["segments_info"][0].update(category_id=4),
        "segment 1 has the category_id 4, not in categories",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG_JSON.values(), ids=WRONG_JSON)
def test_contradictory_json(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    """Error: the file and the entry are named."""
    with pytest.raises(UserError, match=message) as error:
        panoptic_tree(tmp_path, change).load()
    assert "panoptic.json" in one_line(error)


# --- the machine


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: a folder without permission is named, as a data set's and as input; a subfolder is skipped."""
    spec = panoptic_tree(tmp_path)
    listdir, scandir = os.listdir, os.scandir

    def denied(function: Callable[[str], Any]) -> Callable[[str], Any]:
        def call(path: str) -> Any:
            if str(path).endswith("images"):  # tests may run as root, whom no permission stops
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return function(path)

        return call

    monkeypatch.setattr(os, "listdir", denied(listdir))
    monkeypatch.setattr(os, "scandir", denied(scandir))
    with pytest.raises(UserError, match=r"images folder .*images cannot be listed: .*Permission denied") as error:
        spec.load()
    one_line(error)
    with pytest.raises(UserError, match=r"images: the folder cannot be listed: Permission denied") as error:
        find_inputs([str(tmp_path / "images")])
    one_line(error)
    found = find_inputs([str(tmp_path)], recursive=True)
    assert [source.relative for source in found.inputs] == ["masks/a.png"]
    assert len(found.unreadable) == 1 and "images: the folder cannot be listed" in found.unreadable[0]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets writing pictures, or texts, fail as on a full disk."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    targets = {"pictures": [(Image.Image, "save"), (Path, "write_bytes")], "texts": [(Path, "write_text")]}

    def fill(kind: str) -> None:
        for owner, method in targets[kind]:
            monkeypatch.setattr(owner, method, fail)

    return fill


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_full_disk_during_results(tmp_path: Path, full_disk: Callable[[str], None], kind: str) -> None:
    """Error: the evaluator names the file it cannot write, and leaves no half of it."""
    evaluator = PanopticQualityEvaluator(panoptic_tree(tmp_path), output_dir=tmp_path / "out")
    segments = [{"id": 1, "category_id": 0, "isthing": True, "score": 1.0}]
    full_disk(kind)
    with pytest.raises(UserError, match=r"cannot write .*out.*: No space left on device") as error:
        evaluator.process([{"image_id": 1}], [{"panoptic_seg": (torch.ones(8, 12, dtype=torch.int32), segments)}])
        evaluator.evaluate()
    one_line(error)
    left = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == ({".png", ".json"} if kind == "texts" else set())


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_full_disk_during_prediction(tmp_path: Path, full_disk: Callable[[str], None], kind: str) -> None:
    """Error: detectron2-sam predict ends with one line; it does not go on computing what cannot be kept."""
    Image.new("RGB", (12, 8)).save(tmp_path / "a.png")
    full_disk(kind)
    arguments = ["--config-file", CONFIG, "--weights", "random", "--vocabulary", "dog; sky:stuff"]
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device") as error:
        predict.main([*arguments, "--input", str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), *OPTIONS])
    one_line(error)


def test_num_gpus_without_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error: `--num-gpus 8` on a machine without a GPU says what to add for CPU processes, before anything is made."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    arguments = ["--config-file", CONFIG, "--engine", "fabric", "--num-gpus", "8"]
    with pytest.raises(UserError, match="--num-gpus 8 but there is no GPU; .* MODEL.DEVICE cpu") as error:
        train_net.main([*arguments, "OUTPUT_DIR", str(tmp_path / "out")])
    one_line(error)
    assert not (tmp_path / "out").exists()


# --- weights and configurations


def test_weights_whose_frozen_part_has_another_hash(predictor: Predictor, tmp_path: Path) -> None:
    """Error: a checkpoint trained beside other frozen weights (here: drawn from another seed) is refused, with the part
    and both hashes; beside its own it loads."""
    frozen = frozen_sha256(predictor.model)
    content = {"model": trained_state(predictor.model), "frozen_sha256": frozen, "seed": 0}
    torch.save(content, tmp_path / "own.pth")
    torch.save(content | {"seed": 1}, tmp_path / "other.pth")
    assert frozen_sha256(build(str(tmp_path / "own.pth")).model) == frozen
    with pytest.raises(UserError, match=r"other\.pth was trained beside other frozen weights") as error:
        build(str(tmp_path / "other.pth"))
    assert frozen["backbone"][:12] in one_line(error)


@pytest.mark.parametrize("state", [{"training_vocabulary": "[]"}, torch.tensor([91, 49, 93], dtype=torch.uint8)])
def test_weights_whose_list_of_classes_is_damaged(predictor: Predictor, tmp_path: Path, state: Any) -> None:
    """Error: what stands in the place of the training's classes is a dictionary, or the JSON of something else."""
    model = trained_state(predictor.model) | {"_extra_state": state}
    torch.save({"model": model, "seed": 0}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="list of training classes is damaged") as error:
        build(str(tmp_path / "a.pth"))
    one_line(error)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
@pytest.mark.parametrize("inherited", [False, True])
def test_yaml_that_builds_python_objects(tmp_path: Path, tag: str, inherited: bool) -> None:
    """Error: the file, or the base of a file, is refused, and what it wanted to run did not run."""
    (tmp_path / "evil.yaml").write_text(f"SEED: {tag} ['{tmp_path / 'made'}']\n")
    (tmp_path / "child.yaml").write_text("_BASE_: evil.yaml\n")
    with pytest.raises(UserError, match=r"evil\.yaml is not plain YAML") as error:
        build(config=tmp_path / ("child.yaml" if inherited else "evil.yaml"))
    one_line(error)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("read", [read_box_file, read_plain_pickle, parse_vocabulary, read_adapter, read_checkpoint])
def test_pipes_are_not_opened(read: Callable[[Path], Any], tmp_path: Path) -> None:
    """Error, at once: a reader that opened one would wait for a writer for ever."""
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json is a named pipe"):
        read(tmp_path / "a.json")


def test_a_pipe_is_no_data_set(tmp_path: Path) -> None:
    """Likewise, where the annotation should be."""
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match="a named pipe"):
        coco_instance_spec("x", json_file=tmp_path / "a.json", images=tmp_path).load()


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "caf\udce9", "a/" * 3000], ids=["long", "zero", "other", "deep"])
@pytest.mark.parametrize(
    "read",
    [
        *(read_box_file, read_plain_pickle, read_adapter, read_checkpoint, read_weights, read_yolo),
        *(parse_vocabulary, build_box_source, partial(build_clip, "tiny"), Predictor.from_config),
    ],
)
def test_names_that_no_file_can_have(read: Callable[[Any], Any], name: str) -> None:
    """Error, in one line, through every reader that a configuration or a command names a file for."""
    with pytest.raises(UserError, match="a"):
        read(Path(f"{name}.json") if read in (parse_vocabulary, read_weights) else f"{name}.json")
