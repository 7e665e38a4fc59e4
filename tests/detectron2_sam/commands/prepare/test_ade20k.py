"""ADE20K's official tree, in miniature, becomes three data sets that the builtin readers read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from possam.data.mapper import SegmentationMapper
from sam_common.data import catalog
from tests.support.segments import read_segments

WALL, BED, SKY, TABLE, FLAG = 1, 8, 3, 16, 150  # of the 150 classes, counted from 1
BED_THING, TABLE_THING, FLAG_THING = 1, 6, 100  # of the 100 things: lines of the official categoryMapping.txt


def _annotate(tree: Path, folder: str, stem: str, labels: np.ndarray, things: np.ndarray, numbers: np.ndarray) -> None:
    files = {
        "images": (f"{stem}.jpg", np.full((*labels.shape, 3), 90, np.uint8)),
        "annotations": (f"{stem}.png", labels.astype(np.uint8)),
        "annotations_instance": (f"{stem}.png", np.stack([things, numbers, 0 * things], -1).astype(np.uint8)),
    }
    for kind, (file, pixels) in files.items():
        path = tree / kind / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One training and two validation images, 6 wide and 4 high.

    The training image: wall, but the column on the right is unlabelled and the bottom row sky; two beds of 2×2 at the
    left, of which the semantic annotation knows the upper one. The table hides the whole row of sky.
    """
    tree = tmp_path / "ADEChallengeData2016"
    labels, things, numbers = (np.zeros((4, 6), int) for _ in range(3))
    labels[:3, :5], labels[3], labels[:2, :2] = WALL, SKY, BED
    things[:2, :2], numbers[:2, :2] = BED_THING, 1
    things[:2, 2:4], numbers[:2, 2:4] = BED_THING, 5
    things[3], numbers[3] = TABLE_THING, 2
    _annotate(tree, "training", "ADE_train_00000001", labels, things, numbers)
    for index in (1, 2):
        flag = np.zeros((4, 6), int)
        flag[1, 1] = 1
        _annotate(tree, "validation", f"ADE_val_0000000{index}", flag * FLAG, flag * FLAG_THING, flag)
    return tmp_path


def test_three_forms_by_hand(root: Path, run_script: Callable[..., int]) -> None:
    """Derived by hand: things cover stuff, hidden stuff is left out, ids are the classes of the 150, other is void."""
    assert run_script("ade20k", "--root", str(root)) == 0
    catalog.register_builtin(root)
    panoptic, instance = catalog.get("ade20k_panoptic_train"), catalog.get("ade20k_instance_train")
    vocabulary = panoptic.load_vocabulary()
    assert len(vocabulary) == 150 and [c.id for c in vocabulary] == list(range(150))
    (record,) = panoptic.load()
    assert record["image_id"] == "ADE_train_00000001" and (record["height"], record["width"]) == (4, 6)
    classes, masks, crowd = read_segments(record)
    assert [vocabulary[int(index)].name for index in classes] == ["wall", "bed", "table", "bed"] and not crowd.any()
    assert masks.sum((1, 2)).tolist() == [7, 4, 6, 4] == [s["area"] for s in record["segments_info"]]
    assert masks[1, :2, :2].all() and masks[3, :2, 2:4].all() and masks[2, 3].all()
    assert not masks[:, :3, 5].any()

    things = instance.load_vocabulary()
    assert things == tuple(category for category in vocabulary if category.is_thing) and len(things) == 100
    (record,) = instance.load()
    classes, masks, _ = read_segments(record)
    assert [things[int(index)].name for index in classes] == ["bed", "table", "bed"]
    assert [a["bbox"] for a in record["annotations"]] == [[0, 0, 2, 2], [0, 3, 6, 1], [2, 0, 2, 2]]
    assert masks.sum((1, 2)).tolist() == [4, 6, 4] == [a["area"] for a in record["annotations"]]

    semantic = catalog.get("ade20k_sem_seg_train")
    assert [c.name for c in semantic.load_vocabulary()] == [c.name for c in vocabulary]
    (record,) = semantic.load()
    pixels = np.array(Image.open(record["sem_seg_file_name"]))
    assert pixels[0].tolist() == [7, 7, 0, 0, 0, 255] and pixels[3].tolist() == [2] * 6


def test_the_last_class(root: Path, run_script: Callable[..., int]) -> None:
    """Edge case: thing 100 is class 150; two images are in the order of their names."""
    assert run_script("ade20k", "--root", str(root)) == 0
    content = json.loads((root / "ADEChallengeData2016" / "ade20k_instance_val.json").read_text())
    assert [image["id"] for image in content["images"]] == ["ADE_val_00000001", "ADE_val_00000002"]
    assert [a["category_id"] for a in content["annotations"]] == [149, 149]
    assert [a["id"] for a in content["annotations"]] == [1, 2]


def test_started_again_it_keeps_what_is_there(root: Path, run_script: Callable[..., int], capsys) -> None:
    """Invariant: a second run writes nothing; a lost PNG is made again, equal to the first."""
    run_script("ade20k", "--root", str(root))
    png = root / "ADEChallengeData2016" / "ade20k_panoptic_val" / "ADE_val_00000002.png"
    first = png.read_bytes()
    png.unlink()
    assert run_script("ade20k", "--root", str(root)) == 0
    assert png.read_bytes() == first
    assert "ade20k train: all 1 images are prepared already" in capsys.readouterr().out


BROKEN = {
    "truncated image": ("images/validation/ADE_val_00000001.jpg", b"\xff\xd8\xff", "cannot be read as an image"),
    "no annotation": ("annotations/validation/ADE_val_00000001.png", None, "there is no such image file"),
    "another size": ("annotations/validation/ADE_val_00000001.png", np.zeros((4, 5), np.uint8), "is not of the size"),
    "class above 150": ("annotations/validation/ADE_val_00000001.png", np.full((4, 6), 151, np.uint8), "the class 151"),
    "thing above 100": (
        "annotations_instance/validation/ADE_val_00000001.png",
        np.full((4, 6, 3), 101, np.uint8),
        "gives instance 101 the class 101, not of 1..100",
    ),
    "two classes": (
        "annotations_instance/validation/ADE_val_00000001.png",
        np.stack([np.arange(24).reshape(4, 6), np.ones((4, 6)), np.ones((4, 6))], -1).astype(np.uint8),
        "gives instance 1 the classes",
    ),
}


@pytest.mark.parametrize(("file", "content", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_are_passed_by_and_named(
    root: Path, run_script: Callable[..., int], capsys, file: str, content: bytes | np.ndarray | None, message: str
) -> None:
    """Error: the others are prepared, the broken file is listed at the end, the status is 1."""
    path = root / "ADEChallengeData2016" / file
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        Image.fromarray(content).save(path)
    assert run_script("ade20k", "--root", str(root)) == 1
    said = capsys.readouterr().err
    assert "1 broken files were skipped:" in said and message in said and path.name in said
    catalog.register_builtin(root)
    assert [record["image_id"] for record in catalog.get("ade20k_panoptic_val").load()] == ["ADE_val_00000002"]
    assert len(catalog.get("ade20k_sem_seg_val").load()) == 1 == len(catalog.get("ade20k_instance_val").load())


def test_semantic_only(root: Path, run_script: Callable[..., int], capsys) -> None:
    """Without the instance annotation one line says what to do; its label maps can be had alone."""
    tree = root / "ADEChallengeData2016"
    (tree / "annotations_instance").rename(root / "elsewhere")
    assert run_script("ade20k", "--root", str(root)) == 2
    assert "annotations_instance.tar there, or give --semantic-only" in capsys.readouterr().err
    assert run_script("ade20k", "--root", str(root), "--semantic-only") == 0
    assert (tree / "annotations_detectron2" / "training" / "ADE_train_00000001.png").is_file()
    assert not (tree / "ade20k_panoptic_train.json").exists()


def test_no_tree(tmp_path: Path, run_script: Callable[..., int], capsys) -> None:
    """Error: an empty root is one line, status 2."""
    assert run_script("ade20k", "--root", str(tmp_path)) == 2
    assert "there are no images in" in capsys.readouterr().err


def test_validation_only(root: Path, run_script: Callable[..., int], capsys) -> None:
    """A split without images is named, and the other is prepared."""
    tree = root / "ADEChallengeData2016"
    for image in (tree / "images" / "training").iterdir():
        image.unlink()
    assert run_script("ade20k", "--root", str(root)) == 0
    assert "images/training: train is left out" in capsys.readouterr().err
    assert (tree / "ade20k_panoptic_val.json").is_file() and not (tree / "ade20k_panoptic_train.json").exists()


def test_the_forms_train(root: Path, run_script: Callable[..., int]) -> None:
    """The mapper makes the same targets of a panoptic and an instance record where nothing overlaps."""
    run_script("ade20k", "--root", str(root))
    catalog.register_builtin(root)
    masks = []
    for form in ("panoptic", "instance", "sem_seg"):
        spec = catalog.get(f"ade20k_{form}_val")
        mapper = SegmentationMapper(
            spec.load_vocabulary(),
            training=True,
            image_size=6,
            min_scale=1.0,
            max_scale=1.0,
            flip=True,
            color=False,
            min_size_test=4,
            max_size_test=6,
        )
        segments = mapper(spec.load()[0], seed=3)["segments"]
        assert [spec.load_vocabulary()[int(index)].name for index in segments.gt_classes] == ["flag"]
        masks.append(segments.gt_masks)
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2]) and masks[0].sum() == 1
