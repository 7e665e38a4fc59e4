"""KINS's and COCOA's official trees, in miniature, are checked; a folder of COCOA files becomes one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from plug.data.cocoa import cocoa_spec
from tests.support import amodal_trees as trees

Script = Callable[..., int]


def test_kins(tmp_path: Path, run_script: Script, capsys: pytest.CaptureFixture) -> None:
    """Both splits are counted; one that lacks an image is told by its path; without any, status 2."""
    trees.official_tree(tmp_path, "kins_2020")
    assert run_script("kins", "--root", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "kins_train: 1 images, 2 objects, classes: 2" in said and "update_test_2020.json" in said
    (tmp_path / "KINS/testing/image_2/000000.png").unlink()
    assert run_script("kins", "--root", str(tmp_path)) == 0
    assert "kins_val: data set kins_val: there is no file of images" in capsys.readouterr().err
    assert run_script("kins", "--root", str(tmp_path / "nowhere")) == 2
    assert "none of the data sets is there; --help says where" in capsys.readouterr().err


def test_kins_links_kitti(tmp_path: Path, run_script: Script, capsys: pytest.CaptureFixture) -> None:
    """The images may lie where KITTI was unpacked; a second run finds the links; a wrong folder is one line."""
    root, kitti = tmp_path / "datasets", tmp_path / "kitti"
    trees.official_tree(root)
    for split in ("training", "testing"):
        shutil.move(root / "KINS" / split, kitti / split)
    for _ in range(2):
        assert run_script("kins", "--root", str(root), "--kitti", str(kitti)) == 0
        assert "kins_val: 1 images" in capsys.readouterr().out
    assert run_script("kins", "--root", str(root), "--kitti", str(tmp_path)) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_cocoa(tmp_path: Path, run_script: Script, capsys: pytest.CaptureFixture) -> None:
    """All four splits are counted, COCOA's with its one class."""
    trees.official_tree(tmp_path)
    assert run_script("cocoa", "--root", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "cocoa_val: 1 images, 2 objects, classes: 1" in said
    assert "cocoa_cls_train: 1 images, 2 objects, classes: 2" in said


def test_merged_files(samples: Path, tmp_path: Path, run_script: Script, capsys: pytest.CaptureFixture) -> None:
    """Equality on the real images: the one JSON reads as the folder of files does."""
    folder, output = samples / "cocoa", tmp_path / "all.json"
    assert run_script("cocoa", "--merge", str(folder), "--output", str(output)) == 0
    assert "5 images" in capsys.readouterr().out
    merged, apart = (cocoa_spec("real", json_file=path, images=folder).load() for path in (output, folder))
    assert merged == apart
    assert run_script("cocoa", "--merge", str(folder)) == 2
