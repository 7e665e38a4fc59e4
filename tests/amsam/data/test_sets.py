"""The papers' few-shot data sets by name: official trees, their splits, and what is said of other counts."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amsam.data.image_masks import read_labels
from amsam.data.sets import datasets
from sam_common.data.remarks import log_once


def tree(root: Path, images: str, masks: str, stems: list[str], *, suffix: str = "", mode: str = "L") -> None:
    """Pictures of 4×4 pixels, JPG beside PNG, with the notes that archives bring along."""
    for folder in (images, masks):
        (root / folder).mkdir(parents=True)
        (root / folder / ".DS_Store").write_bytes(b"x")
        (root / folder / "LICENSE.txt").write_text("x")
    for stem in stems:
        Image.new("RGB", (4, 4)).save(root / images / f"{stem}.jpg")
        Image.fromarray(np.eye(4, dtype=np.uint8) * 255).convert(mode).save(root / masks / f"{stem}{suffix}.png")


def ids(root: Path, name: str) -> list[str]:
    (spec,) = (spec for spec in datasets(root) if spec.name == name)
    records = spec.load()
    assert all(read_labels(record).sum() == 4 for record in records)
    return [record["image_id"] for record in records]


@pytest.fixture(autouse=True)
def _warn_again() -> None:
    log_once.cache_clear()


@pytest.mark.parametrize("nested", [False, True])
def test_tiktok(tmp_path: Path, nested: bool) -> None:
    """Names of five digits, RGB masks: the last 2,000 by name are the test set; as the archive unpacks or not."""
    name = "segmentation_full_body_tik_tok_2615_img"
    folder = f"{name}/{name}" if nested else name
    tree(tmp_path, f"{folder}/images", f"{folder}/masks", [f"{i:05d}" for i in range(4)], mode="RGB")
    assert ids(tmp_path, "tiktok_train") == [] and len(ids(tmp_path, "tiktok_test")) == 4


def test_human_segmentation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the repository has them, 1 … 289 and 300: those above 200 are the test set, the others the pool; there is
    nothing to warn of but the notes beside them, once."""
    folder = "Human-Segmentation-Dataset"
    stems = [str(i) for i in (*range(1, 290), 300)]
    tree(tmp_path, f"{folder}/Training_Images", f"{folder}/Ground_Truth", stems)
    assert ids(tmp_path, "human_segmentation_train") == stems[:200]
    assert ids(tmp_path, "human_segmentation_test") == stems[200:]
    assert len(stems[200:]) == 90 and stems[200] == "201"
    assert [message.endswith("skipped: .DS_Store, LICENSE.txt") for message in caplog.messages] == [True, True]


def test_isic(tmp_path: Path) -> None:
    """Three pairs of folders, masks that end in _segmentation; the class is called lesion."""
    for split, stem in (("Training", "ISIC_0000000"), ("Validation", "ISIC_0012255"), ("Test", "ISIC_0012169")):
        images, masks = f"ISIC2018_Task1-2_{split}_Input", f"ISIC2018_Task1_{split}_GroundTruth"
        tree(tmp_path / "ISIC2018", images, masks, [stem], suffix="_segmentation")
    assert ids(tmp_path, "isic2018_train") == ["ISIC_0000000"]
    assert ids(tmp_path, "isic2018_val") == ["ISIC_0012255"]
    assert ids(tmp_path, "isic2018_test") == ["ISIC_0012169"]
    words = {spec.load_vocabulary()[0].name for spec in datasets(tmp_path) if "worms" not in spec.name}
    assert words == {"person", "lesion"}


def test_another_count_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of 250 pairs those above 200 are taken, and the log says by name that this is not the paper's split."""
    folder = "Human-Segmentation-Dataset"
    tree(tmp_path, f"{folder}/Training_Images", f"{folder}/Ground_Truth", [str(i) for i in range(1, 251)])
    with caplog.at_level(logging.WARNING):
        assert ids(tmp_path, "human_segmentation_test") == [str(i) for i in range(201, 251)]
        ids(tmp_path, "human_segmentation_test")
    assert [message for message in caplog.messages if "split" in message] == [
        "data set human_segmentation_test: 250 images, the paper's has 290: this split is not the paper's"
    ]
