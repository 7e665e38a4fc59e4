"""The parameter table of the paper, to the last parameter (spec section 4)."""

from __future__ import annotations

import json

import pytest

from tools.count_parameters import main

TRAINABLE_PARTS = {
    "backbone.feature_pyramid": 1_377_792,
    "head.pixel_decoder": 5_315_008,
    "head.decoder": 14_458_624,
    "head.pooling": 30_301_440,
    "head.iou_head": 131_841,
    "head.classifier": 769,
}
CLIP = 351_772_609


@pytest.mark.parametrize(("size", "sam"), [("B", 89_670_912), ("L", 308_278_272), ("H", 637_026_048)])
def test_every_part_has_the_papers_number_of_parameters(
    size: str, sam: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Totals truncate to the paper's table (B 441.4/493.0, L 660.0/711.6, H 988.7/1040.3 M) and every part adds up."""
    main(["--config-file", f"configs/possam_{size}.yaml", "--parts"])
    total, *parts = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    trainable = sum(TRAINABLE_PARTS.values())
    assert trainable == 51_585_474
    assert total == {"trainable": trainable, "frozen": sam + CLIP, "total": sam + CLIP + trainable}
    counts = {name: count for part in parts for name, count in part.items()}
    assert {name: counts[name]["trainable"] for name in TRAINABLE_PARTS} == TRAINABLE_PARTS
    assert counts["backbone.image_encoder"] == {"trainable": 0, "frozen": sam, "total": sam}
    assert counts["clip"] == {"trainable": 0, "frozen": CLIP, "total": CLIP}
