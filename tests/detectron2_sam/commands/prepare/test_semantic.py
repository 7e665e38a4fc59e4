"""The official trees of ADE20K-847, PASCAL-Context and PASCAL VOC, in miniature, become data sets that are read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from sam_common.data import catalog
from sam_common.data.label_maps import read_label_map
from sam_common.data.remarks import log_once

Script = Callable[..., int]


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def _picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


# ADE20K-847

WALL, SKY, LAST, OF_NONE = 2978, 2420, 3148, 1  # numbers in ADE20K's own files; the last is none of the 847


def _seg(numbers: np.ndarray) -> np.ndarray:
    """The official `_seg.png`: red // 10 * 256 + green is the class; blue, and the rest of red, say other things."""
    return np.stack([numbers // 256 * 10 + 7, numbers % 256, np.full_like(numbers, 200)], -1)


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    """A training image of 4×6, and a validation image of 1024×1538, whose shorter side is twice 512."""
    images = tmp_path / "ADE20K_2021_17_01/images/ADE"
    numbers = np.full((4, 6), WALL)
    numbers[0], numbers[3, 5], numbers[3, 0] = SKY, LAST, OF_NONE
    _save(images / "training/urban/street/ADE_train_00000001.jpg", _picture(4, 6))
    _save(images / "training/urban/street/ADE_train_00000001_seg.png", _seg(numbers))
    _save(images / "training/urban/street/ADE_train_00000001/instance_000.png", np.zeros((4, 6)))
    _save(images / "training/urban/street/ADE_train_00000001_parts_1.png", np.zeros((4, 6, 3)))
    numbers = np.full((1024, 1538), WALL)
    numbers[:, 769:] = SKY
    _save(images / "validation/misc/ADE_val_00000001.jpg", _picture(1024, 1538))
    _save(images / "validation/misc/ADE_val_00000001_seg.png", _seg(numbers))
    return tmp_path


def test_ade20k_full_by_hand(ade: Path, run_script: Script, capsys) -> None:
    """Derived by hand: numbers become indices of the 847, others no class; large images are halved; counts are told."""
    assert run_script("ade20k_full", "--root", str(ade)) == 0
    assert "ade20k_full val: 1 images, the official split has 2000" in capsys.readouterr().err
    catalog.register_builtin(ade)
    train, val = (catalog.get(f"ade20k_full_sem_seg_{split}") for split in ("train", "val"))
    names = [category.name for category in train.load_vocabulary()]
    assert len(names) == 847 and train.ignore_label == 65535
    (record,) = train.load()
    labels = read_label_map(record)
    assert labels[0].tolist() == [names.index("sky")] * 6 and labels[1].tolist() == [names.index("wall")] * 6
    assert labels[3].tolist() == [-1, 0, 0, 0, 0, 846] and names[846] == "adding machine"
    (record,) = val.load()
    assert (record["height"], record["width"]) == (512, 769)
    assert Image.open(record["file_name"]).size == (769, 512)
    labels = read_label_map(record)
    assert (labels == names.index("wall")).sum() + (labels == names.index("sky")).sum() == 512 * 769
    assert labels[5, 383] == names.index("wall") and labels[5, 386] == names.index("sky")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("_seg.png", None, "there is no such image file"),
        ("_seg.png", np.zeros((4, 5, 3)), "is not of the size of"),
        (".jpg", b"\xff\xd8\xff", "cannot be read as an image"),
    ],
)
def test_broken_ade20k_full(ade: Path, run_script: Script, capsys, file: str, content, message: str) -> None:
    """Error: the broken file is named, the other split is made, the status is 1; mended, it is made up for."""
    path = ade / f"ADE20K_2021_17_01/images/ADE/training/urban/street/ADE_train_00000001{file}"
    right = path.read_bytes()
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        _save(path, content)
    assert run_script("ade20k_full", "--root", str(ade)) == 1
    said = capsys.readouterr().err
    assert "1 broken files were skipped:" in said and message in said and "ADE_train_00000001" in said
    made = ade / "ADE20K_2021_17_01/annotations_detectron2"
    assert [path.name for path in made.rglob("*.tif")] == ["ADE_val_00000001.tif"]
    path.write_bytes(right)
    assert run_script("ade20k_full", "--root", str(ade)) == 0
    assert len(list(made.rglob("*.tif"))) == 2


# PASCAL-Context

BAG, TREE, UNKNOWN, WOOL = 9, 420, 431, 459  # lines of the official labels.txt; the first two are among the 59


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """One image of 2×3 in each split."""
    voc = tmp_path / "VOCdevkit/VOC2010"
    for split, name in (("train", "2008_000002"), ("val", "2008_000003")):
        _save(voc / f"JPEGImages/{name}.jpg", _picture(2, 3))
        (voc / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (voc / f"ImageSets/Main/{split}.txt").write_text(f"{name}\n")
        (voc / "trainval").mkdir(exist_ok=True)
        numbers = np.array([[0, BAG, TREE], [UNKNOWN, WOOL, 1]], np.uint16)
        scipy.io.savemat(voc / f"trainval/{name}.mat", {"LabelMap": numbers})
    return tmp_path


def test_pascal_context_by_hand(context: Path, run_script: Script, capsys) -> None:
    """Derived by hand: both sets of classes from one LabelMap; what has no class, or none of the 59, is left out."""
    assert run_script("pascal_context", "--root", str(context)) == 0
    assert "pascal_context train: 1 images, the official split has 4998" in capsys.readouterr().err
    catalog.register_builtin(context)
    of_459, of_59 = (catalog.get(f"openvocab_pascal_ctx{count}_sem_seg_val") for count in (459, 59))
    (record,) = of_459.load()
    assert record["file_name"].endswith("VOC2010/JPEGImages/2008_000003.jpg")  # images stay where they are
    labels = read_label_map(record)
    assert labels.tolist() == [[-1, 8, 419], [430, 458, 0]]
    names = [category.name for category in of_459.load_vocabulary()]
    assert [names[index] for index in (8, 419, 430, 458, 0)] == ["bag", "tree", "unknown", "wool", "accordion"]
    (record,) = of_59.load()
    names = [category.name for category in of_59.load_vocabulary()]
    assert len(names) == 59 and of_59.ignore_label == 255 and of_459.ignore_label == 65535
    assert read_label_map(record).tolist() == [[-1, names.index("bag"), names.index("tree")], [-1, -1, -1]]


def _save_mat(path: Path, **content: np.ndarray) -> None:
    scipy.io.savemat(path, content)


BROKEN = {
    "missing": (lambda path: path.unlink(), "there is no"),
    "no mat": (lambda path: path.write_bytes(b"hello"), "cannot be read as PASCAL-Context's LabelMap"),
    "another content": (lambda path: _save_mat(path, Other=np.zeros((2, 3))), "cannot be read as PASCAL-Context's"),
    "another size": (lambda path: _save_mat(path, LabelMap=np.zeros((3, 2), np.uint16)), r"LabelMap is uint16 (3, 2)"),
    "no class": (lambda path: _save_mat(path, LabelMap=np.full((2, 3), 460)), "holds the class 460, not one of"),
    "a negative class": (lambda path: _save_mat(path, LabelMap=np.full((2, 3), -1)), "holds the class -1, not one of"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_pascal_context(context: Path, run_script: Script, capsys, damage, message: str) -> None:
    """Error: the file is named, the other split is made, the status is 1."""
    damage(context / "VOCdevkit/VOC2010/trainval/2008_000002.mat")
    assert run_script("pascal_context", "--root", str(context)) == 1
    said = capsys.readouterr().err
    assert "1 broken files were skipped:" in said and message in said and "2008_000002" in said
    assert len(list((context / "pascal_ctx_d2").rglob("2008_000003.*"))) == 2


# PASCAL VOC


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """One image of 2×3 in each split, with the palette that VOC's files have."""
    tree = tmp_path / "VOCdevkit/VOC2012"
    for split, name in (("train", "2007_000032"), ("val", "2007_000033")):
        _save(tree / f"JPEGImages/{name}.jpg", _picture(2, 3))
        _save(tree / "JPEGImages/2012_004331.jpg", _picture(2, 3))  # of no split
        (tree / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (tree / f"ImageSets/Segmentation/{split}.txt").write_text(f"{name}\n")
        (tree / "SegmentationClass").mkdir(exist_ok=True)
        truth = Image.fromarray(np.array([[0, 1, 20], [255, 15, 0]], np.uint8), "P")
        truth.putpalette([10, 20, 30] * 256)
        truth.save(tree / f"SegmentationClass/{name}.png")
    return tmp_path


def test_pascal_voc_by_hand(voc: Path, run_script: Script, capsys) -> None:
    """Derived by hand: the background is class 0 of the 21 and no class of the 20; borders are nothing in both."""
    assert run_script("pascal_voc", "--root", str(voc)) == 0
    assert "pascal_voc val: 1 images, the official split has 1449" in capsys.readouterr().err
    catalog.register_builtin(voc)
    of_21, of_20 = (catalog.get(f"openvocab_pascal{count}_sem_seg_val") for count in (21, 20))
    names = [category.name for category in of_21.load_vocabulary()]
    assert names[0] == "background" and names[1:] == [category.name for category in of_20.load_vocabulary()]
    assert [names[index] for index in (1, 15, 20)] == ["aeroplane", "person", "tv monitor"]
    assert read_label_map(of_21.load()[0]).tolist() == [[0, 1, 20], [-1, 15, 0]]
    assert read_label_map(of_20.load()[0]).tolist() == [[-1, 0, 19], [-1, 14, -1]]


def test_a_tree_made_by_others(voc: Path, run_script: Script) -> None:
    """The scripts of FC-CLIP copy the images into folders of the splits: where these are, they are read."""
    assert run_script("pascal_voc", "--root", str(voc)) == 0
    copied = voc / "pascal_voc_d2/images/validation/2007_000033.jpg"
    _save(copied, _picture(2, 3))
    catalog.register_builtin(voc)
    assert catalog.get("openvocab_pascal20_sem_seg_val").load()[0]["file_name"] == str(copied)


def test_broken_pascal_voc(voc: Path, run_script: Script, capsys) -> None:
    """Error: a class above 20 and a size that is not the image's are named."""
    labels = voc / "VOCdevkit/VOC2012/SegmentationClass"
    _save(labels / "2007_000032.png", np.full((2, 3), 21))
    _save(labels / "2007_000033.png", np.zeros((3, 2)))
    assert run_script("pascal_voc", "--root", str(voc)) == 1
    said = capsys.readouterr().err
    assert "2007_000032.png holds the class 21, above 20" in said and "2007_000033.png is not of the size of" in said


def test_a_split_leads_nowhere_else(voc: Path, run_script: Script, capsys) -> None:
    """Error: a name that is a path, of which a file elsewhere would be made."""
    (voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("../../2007_000033")
    assert run_script("pascal_voc", "--root", str(voc)) == 2
    assert "val.txt: ../../2007_000033 is a path" in capsys.readouterr().err


def test_another_number_of_images_is_warned_of(voc: Path, run_script: Script, caplog) -> None:
    """Whoever evaluates on a part of a split reads it in the log, by name."""
    run_script("pascal_voc", "--root", str(voc))
    catalog.register_builtin(voc)
    log_once.cache_clear()  # it warns once in a process
    catalog.get("openvocab_pascal20_sem_seg_val").load()
    assert "data set openvocab_pascal20_sem_seg_val: 1 images, the paper's has 1449" in caplog.text


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("ade20k_full", "there are no images in"),
        ("pascal_context", "ImageSets/Main/train.txt; see"),
        ("pascal_voc", "ImageSets/Segmentation/train.txt; see"),
    ],
)
def test_no_tree(tmp_path: Path, run_script: Script, capsys, script: str, message: str) -> None:
    """Error: an empty root is one line, status 2."""
    assert run_script(script, "--root", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("tree", "script", "missing"),
    [
        ("ade", "ade20k_full", "ADE20K_2021_17_01/images/ADE/training"),
        ("context", "pascal_context", "VOCdevkit/VOC2010/ImageSets/Main/train.txt"),
        ("voc", "pascal_voc", "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"),
    ],
)
def test_validation_only(
    request: pytest.FixtureRequest, run_script: Script, capsys, tree: str, script: str, missing: str
) -> None:
    """A split that is not there is named, and the other is prepared."""
    root: Path = request.getfixturevalue(tree)
    path = root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run_script(script, "--root", str(root)) == 0
    assert f"{path}: train is left out" in capsys.readouterr().err
    made = [file.parts[-2] for file in root.rglob("*") if "annotations_" in str(file) and file.is_file()]
    assert set(made) == {"validation"}


def test_started_again_nothing_is_written(context: Path, run_script: Script) -> None:
    """Invariant: a lost file is made again, equal to the first; the others are not touched."""
    run_script("pascal_context", "--root", str(context))
    lost = context / "pascal_ctx_d2/annotations_ctx459/training/2008_000002.tif"
    kept = context / "pascal_ctx_d2/annotations_ctx59/training/2008_000002.png"
    first, stamp = torch.from_numpy(np.array(Image.open(lost)).astype(np.int64)), kept.stat().st_mtime_ns
    lost.unlink()
    assert run_script("pascal_context", "--root", str(context)) == 0
    assert torch.equal(torch.from_numpy(np.array(Image.open(lost)).astype(np.int64)), first)
    assert kept.stat().st_mtime_ns == stamp
