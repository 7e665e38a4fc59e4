"""The parameter table of the paper, to the last parameter (spec section 4)."""

from __future__ import annotations

import json

import pytest

from detectron2_sam.commands.count_parameters import main

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


@pytest.mark.parametrize(
    ("size", "lora", "trainable", "total"),
    [
        ("B", 1_179_648, 8_617_935, 95_896_783),
        ("L", 3_145_728, 10_584_015, 315_683_791),
        ("H", 5_242_880, 12_681_167, 645_734_095),
    ],
)
@pytest.mark.parametrize("data", ["kins", "cocoa"])
def test_every_part_of_plug_has_the_papers_number_of_parameters(
    size: str, lora: int, trainable: int, total: int, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """PLUG's 96, 316 and 645 M (12.7 M of them trained, size H), to the last parameter, from the shipped files."""
    main(["--config-file", f"configs/plug_{size}_{data}.yaml", "--parts"])
    counts, *parts = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert counts == {"trainable": trainable, "frozen": total - trainable, "total": total}
    trained = {name: count["trainable"] for part in parts for name, count in part.items()}
    expected = {"encoder": lora, "prompt_encoder": 6_220, "decoders": 2 * 3_637_377, "refine": 157_313}
    assert {name: trained[name] for name in expected} == expected and sum(expected.values()) == trainable


@pytest.mark.parametrize(("size", "total"), [("B", 93_478_382), ("L", 312_085_742), ("H", 640_833_518)])
def test_every_part_of_amsam_has_the_papers_number_of_parameters(
    size: str, total: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """510,242 train, whatever the encoder, as AM-SAM's specification lists them, from the shipped files."""
    main(["--config-file", f"configs/amsam_{size}.yaml", "--parts"])
    counts, *parts = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert counts == {"trainable": 510_242, "frozen": total - 510_242, "total": total}
    trained = {name: count["trainable"] for part in parts for name, count in part.items()}
    expected = {
        "encoder": 0,
        "prompt_encoder.no_mask_embed": 256,
        "decoder.transformer": 23_552,
        "decoder.iou_token": 256,
        "decoder.mask_tokens": 512,
        "decoder.output_upscaling": 73_952,
        "decoder.output_hypernetworks_mlps": 279_616,
        "decoder.iou_prediction_head": 132_098,
    }
    assert {name: trained[name] for name in expected} == expected and sum(expected.values()) == 510_242
    assert trained["prompt_encoder"] == 256  # A and nothing else of it
