"""Where data sets come from: every one that is known by name says so, as datasets/README.md does."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam_common.data import catalog
from sam_common.data.sources import source_of, where_to_get

DATASETS = Path(__file__).resolve().parents[3] / "datasets"


def test_every_builtin_data_set_has_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its script is there, and its pages are those of the README."""
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    catalog.register_builtin()
    readme = (DATASETS / "README.md").read_text(encoding="utf-8")
    for name in catalog.names():
        source = source_of(name)
        assert source is not None, name
        assert all(page in readme for page in source.pages), name
        assert not source.script or (DATASETS / source.script).is_file(), name


def test_the_longest_beginning_counts() -> None:
    """Derived by hand: one name begins as another does; a data set of the user's own has no source."""
    assert where_to_get("generated_test_amodal") == "python datasets/prepare_generated.py"
    assert where_to_get("ade20k_panoptic_val").endswith("then python datasets/prepare_ade20k.py")
    assert where_to_get("ade20k_full_sem_seg_val").endswith("then python datasets/prepare_ade20k_full.py")
    assert where_to_get("openvocab_pascal20_sem_seg_val").endswith("then python datasets/prepare_pascal_voc.py")
    assert "AISFormer" in where_to_get("cocoa_cls_val") and "amodalAPI" in where_to_get("cocoa_val")
    assert where_to_get("isic2018_test").endswith("laid out as in datasets/README.md")
    assert where_to_get("mine").startswith("correct its entry in DATASETS.REGISTER")
