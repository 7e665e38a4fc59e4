"""Where data sets come from: every one that is known by name says so, as datasets/README.md does."""

from __future__ import annotations

from pathlib import Path

import pytest

from detectron2_sam.commands import prepare
from detectron2_sam.commands.doctor import where_to_get
from sam_common.data import catalog

DATASETS = Path(__file__).resolve().parents[3] / "datasets"


@pytest.fixture(autouse=True)
def _builtin_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})
    catalog.register_builtin()


def test_every_builtin_data_set_has_a_source() -> None:
    """What prepares it is there, in the program and as a script; its pages are those of the README."""
    readme = (DATASETS / "README.md").read_text(encoding="utf-8")
    for name in catalog.names():
        source = catalog.get(name).source
        assert source is not None, name
        assert all(page in readme for page in source.pages), name
        assert not source.prepare or (Path(prepare.__file__).parent / f"{source.prepare}.py").is_file(), name
        assert not source.prepare or (DATASETS / f"prepare_{source.prepare}.py").is_file(), name


def test_what_to_do_where_files_are_missing() -> None:
    """Derived by hand: the command alone, pages and command, pages alone; a data set of the user's own has neither."""

    def told(name: str) -> str:
        return where_to_get(catalog.get(name).source)

    assert told("generated_test_amodal") == "detectron2-sam prepare generated"
    assert told("ade20k_panoptic_val").endswith("then detectron2-sam prepare ade20k")
    assert told("ade20k_full_sem_seg_val").endswith("then detectron2-sam prepare ade20k_full")
    assert told("openvocab_pascal20_sem_seg_val").endswith("then detectron2-sam prepare pascal_voc")
    assert "AISFormer" in told("cocoa_cls_val") and "amodalAPI" in told("cocoa_val")
    assert told("isic2018_test").endswith("as datasets/README.md shows")
    assert where_to_get(None).startswith("correct its entry in DATASETS.REGISTER")
