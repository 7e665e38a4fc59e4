"""Methods by name and by the truth that they learn from."""

from __future__ import annotations

import pytest

from detectron2_sam.methods import methods
from sam_common.config import get_cfg
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine.build_data import method_of_spec
from sam_common.errors import UserError
from sam_common.method import backward_of, build_model, find_method


def test_an_unknown_meta_architecture_lists_the_known_ones() -> None:
    """The error tells what could be written instead."""
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "PosSAN"
    with pytest.raises(UserError, match="'PosSAN' is unknown; known: AMSAM, BoxRectangle, PLUG, PosSAM, PromptedSAM"):
        build_model(cfg)


def test_what_a_method_is_compared_with_belongs_to_it() -> None:
    """Every architecture and every kind of truth has one owner; only the method itself learns at several levels."""
    possam, plug, amsam = methods()
    assert find_method("VanillaSAM") is plug and find_method("BoxRectangle") is amsam and find_method("other") is None
    for truth, owner in (("semantic", possam), ("masks", amsam)):
        assert method_of_spec(DatasetSpec("a", list, tuple, truth=truth)) is owner
    with pytest.raises(UserError, match="the truth of a is 'depth'; choose one of"):
        method_of_spec(DatasetSpec("a", list, tuple, truth="depth"))
    kinds = [kind for method in methods() for kind in method.truths]
    assert len(kinds) == len(set(kinds))
    cfg = get_cfg()
    for name, make in (("AMSAM", amsam.backward), ("PromptedSAM", None), ("PosSAM", None)):
        cfg.MODEL.META_ARCHITECTURE = name
        assert backward_of(cfg) is make
