"""Registries and configuration keys."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

import detectron2_sam
from amsam.method import METHOD
from detectron2_sam.methods import full_cfg
from detectron2_sam.plugin import amodal, amodal_detector, few_shot, modeling, registration
from sam_common import config
from sam_common.errors import UserError
from sam_common.method import find_method
from tests.detectron2_sam.plugin.conftest import HERE

CONFIGS = sorted((HERE.parents[2] / "configs").glob("*.yaml"))


_OF_POSSAM = {
    *("MODEL.BACKBONE.NAME", "SOLVER.STEPS"),
    *("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"),
}
UNREAD = {"PLUG": _OF_POSSAM, "AMSAM": _OF_POSSAM | {"INPUT.RANDOM_FLIP"}}
"""Keys that a method does not look at, so its files need not set them."""


def leaves(node: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]


def ours() -> config.CfgNode:
    return full_cfg()


def test_registering_twice_is_registering_once() -> None:
    """Each part is in its registry under its name, and a second call neither raises nor replaces it."""
    detectron2_sam.register()
    detectron2_sam.register()
    assert META_ARCH_REGISTRY.get("PosSAM") is modeling.PosSAM
    assert META_ARCH_REGISTRY.get("PLUG") is amodal.PLUG and META_ARCH_REGISTRY.get("VanillaSAM") is amodal.VanillaSAM
    assert META_ARCH_REGISTRY.get("AmodalDetector") is amodal_detector.AmodalDetector
    for model in (few_shot.AMSAM, few_shot.PromptedSAM, few_shot.BoxRectangle):
        assert META_ARCH_REGISTRY.get(model.__name__) is model and find_method(model.__name__) is METHOD
    assert BACKBONE_REGISTRY.get("SamViTBackbone") is modeling.SamViTBackbone
    assert detectron2_sam.POSSAM_HEAD_REGISTRY.get("PosSAMHead") is modeling.PosSAMHead


def test_a_name_that_is_taken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another project's PosSAM is not silently used, nor replaced."""
    monkeypatch.setitem(META_ARCH_REGISTRY._obj_map, "PosSAM", object)
    with pytest.raises(UserError, match="already has another PosSAM"):
        registration.register()


def test_add_config_twice_changes_nothing_more() -> None:
    """Also after a file was merged: values that it set are kept."""
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    once = cfg.dump()
    detectron2_sam.add_config(cfg)
    assert cfg.dump() == once
    cfg.merge_from_list(["MODEL.POSSAM.WIDTH", 128])
    detectron2_sam.add_config(cfg)
    assert cfg.MODEL.POSSAM.WIDTH == 128


def test_add_config_after_a_file_raises(tmp_path: Path) -> None:
    """The message names what has changed already and says when to call it."""
    (tmp_path / "a.yaml").write_text("VERSION: 2\nSOLVER:\n  BASE_LR: 0.5\n")
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "a.yaml"))
    with pytest.raises(UserError, match=r"SOLVER\.BASE_LR.*before merge_from_file"):
        detectron2_sam.add_config(cfg)


def test_keys_of_detectron2_and_of_other_projects_stay() -> None:
    """Nothing of Detectron2's changes, so stock files mean what they meant; Mask2Former's keys may be there before."""
    stock, cfg = get_cfg(), get_cfg()
    cfg.INPUT.IMAGE_SIZE = 640
    detectron2_sam.add_config(cfg)
    assert cfg.INPUT.IMAGE_SIZE == 640
    after = dict(leaves(cfg))
    assert {key: after[key] for key, _ in leaves(stock)} == dict(leaves(stock))


def test_every_key_has_detectron2s_type() -> None:
    """Where Detectron2 has a key of the same name, our default has its type, so one YAML serves both."""
    stock = dict(leaves(get_cfg()))
    different = {k: (v, stock[k]) for k, v in leaves(ours()) if k in stock and type(v) is not type(stock[k])}
    assert not different


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_yaml_gives_both_engines_the_same_values(path: Path) -> None:
    """Every key of ours has one value under both, in type too; but the device, which Detectron2 never guesses."""
    mine, cfg = ours(), get_cfg()
    mine.merge_from_file(path)
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(str(path), allow_unsafe=False)
    theirs = dict(leaves(cfg))
    different = {k: (v, theirs[k]) for k, v in leaves(mine) if (type(v), v) != (type(theirs[k]), theirs[k])}
    assert different.keys() - UNREAD.get(cfg.MODEL.META_ARCHITECTURE, set()) == {"MODEL.DEVICE"}


def test_a_part_that_is_none_is_an_error() -> None:
    """A word in place of a tuple of words, too."""
    for only in (("model",), "models"):
        with pytest.raises(UserError, match="'models', 'datasets', 'solver'"):
            detectron2_sam.register(only=only)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_beside_a_project_with_the_same_data_sets(first: str) -> None:
    """Mask2Former registers `ade20k_panoptic_val` at import, after ours without data sets, or before all of ours, which
    leave that name alone. In a process of its own, since catalogs are global."""
    module = "mask2former/data/datasets/register_ade20k_panoptic.py"
    path = Path(os.environ.get("BENCH_PEERS", ""), "Mask2Former", module)
    if not path.is_file():
        pytest.skip("BENCH_PEERS names no folder with a clone of Mask2Former")
    theirs = f"import runpy; runpy.run_path({str(path)!r})"
    ours = "detectron2_sam.register(only=('models', 'solver'))" if first == "ours" else "detectron2_sam.register()"
    lines = [ours, theirs] if first == "ours" else [theirs, ours]
    check = "assert len(MetadataCatalog.get('ade20k_panoptic_val').stuff_colors) == 150"
    program = ["import detectron2_sam", "from detectron2.data import MetadataCatalog", *lines, check]
    subprocess.run([sys.executable, "-c", "\n".join(program)], check=True, timeout=120)


def test_shipped_configurations_by_name() -> None:
    """YAML and LazyConfig; a mistyped name is answered with the nearest."""
    assert Path(detectron2_sam.get_config_file("possam_T")) == CONFIGS[0].parent / "possam_T.yaml"
    lazy = Path(detectron2_sam.get_config_file("detectron2/possam_T.py"))
    assert lazy == CONFIGS[0].parent / "detectron2" / "possam_T.py"
    with pytest.raises(UserError, match=r"did you mean possam_T"):
        detectron2_sam.get_config_file("detectron2/posam_T.py")
