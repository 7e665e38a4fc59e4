"""What the engine makes of a configuration: values that no part could work with are told by their key."""

from __future__ import annotations

import pytest

from sam_common.config import get_cfg
from sam_common.engine.build import build_mapper
from sam_common.errors import UserError


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("INPUT.FORMAT", "BGR", "INPUT.FORMAT is 'BGR'; choose one of RGB"),
        ("INPUT.IMAGE_SIZE", "0", "INPUT.IMAGE_SIZE is 0; give at least 1 pixel"),
        ("INPUT.MAX_SIZE_TEST", "-1", "INPUT.MAX_SIZE_TEST is -1"),
        ("INPUT.RANDOM_FLIP", "both", "choose one of horizontal, none"),
    ],
)
def test_inputs_that_cannot_be_made(key: str, value: str, message: str) -> None:
    """Detectron2's default BGR is refused, not ignored: the pixel statistics here are RGB."""
    cfg = get_cfg()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        build_mapper(cfg, (), training=True)
