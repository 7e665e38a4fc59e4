"""The mapper: picture and masks move together, every draw comes from the seed, and bad files are named."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from possam.data.mapper import SegmentationMapper, photometric_distort
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.images import fit_size, shortest_edge_size, write_segment_ids
from sam_common.errors import UserError

KEYS = {"image", "height", "width", "file_name", "image_id", "vocabulary"}


def _mapper(spec, **options) -> SegmentationMapper:
    """By default it trains and changes nothing about an image whose longest side is 12."""
    plain = {"training": True, "image_size": 12, "min_scale": 1.0, "max_scale": 1.0, "flip": False, "color": False}
    return SegmentationMapper(spec.load_vocabulary(), **{**plain, "min_size_test": 8, "max_size_test": 100, **options})


def test_training_item_by_hand(tree):
    """Derived by hand: at scale 1 picture and masks are as in the files; crowd and void are no targets."""
    spec = tree.spec()
    record = spec.load()[0]
    item = _mapper(spec)(record, seed=3)
    assert set(item) == KEYS | {"segments", "seed"} and item["seed"] == 3
    assert (item["height"], item["width"], item["image_id"]) == (8, 12, 5)
    assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 8, 12)
    segments = item["segments"]
    assert segments.gt_classes.tolist() == [1, 0] and segments.gt_masks.dtype == torch.bool
    assert segments.gt_masks.sum((1, 2)).tolist() == [44, 47]
    assert torch.equal(segments.gt_masks[0], item["image"][0] == 200)
    assert not segments.gt_masks[:, :2, :2].any() and not segments.gt_masks[:, 0, 11].any()


@pytest.mark.parametrize("seed", range(20))
def test_picture_and_masks_move_together(tree, seed):
    """Invariant: through scale, crop and flip the red of the picture stays on segment 1, but for its edge."""
    spec = tree.spec()
    item = _mapper(spec, image_size=24, min_scale=1.5, max_scale=3.0, flip=True)(spec.load()[0], seed)
    height, width = item["image"].shape[1:]
    assert max(height, width) == 24
    masks, classes = item["segments"].gt_masks, item["segments"].gt_classes
    assert masks.shape[1:] == (height, width) and masks.flatten(1).any(1).all()
    cats = masks[classes == 1].any(0)
    assert ((item["image"][0] > 150) == cats).float().mean() >= 0.97


def test_everything_is_drawn_from_the_seed(tree):
    """Invariant: one seed gives one item; others differ; torch's global generator is neither used nor moved."""
    spec = tree.spec()
    record = spec.load()[0]
    mapper = _mapper(spec, image_size=8, min_scale=0.5, max_scale=3.0, flip=True, color=True)
    state = torch.get_rng_state()
    first = [mapper(record, seed) for seed in range(8)]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    second = [mapper(record, seed) for seed in range(8)]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a["segments"].gt_masks, b["segments"].gt_masks) for a, b in zip(first, second, strict=True))
    assert len({(item["image"].shape, item["image"].float().sum().item()) for item in first}) == 8


def test_every_second_image_is_flipped(tree):
    """Derived by hand: the cat is on the left, or on the right in about half of 100 items (binomial, ±4σ = ±20)."""
    spec = tree.spec()
    record = spec.load()[0]
    mapper = _mapper(spec, flip=True)
    flipped = sum(int(not mapper(record, seed)["segments"].gt_masks[0, 7, 0]) for seed in range(100))
    assert 30 <= flipped <= 70


def test_crops_reach_every_corner_and_drop_what_they_lose(tree):
    """Over 60 crops of 4×4 in 8×12, the cat or the sky is at times out of sight, and then no target."""
    spec = tree.spec()
    record = spec.load()[0]
    mapper = _mapper(spec, image_size=4, min_scale=3.0, max_scale=3.0)
    kept = {tuple(mapper(record, seed)["segments"].gt_classes.tolist()) for seed in range(60)}
    assert kept == {(1,), (0,), (1, 0)}
    voids = [~mapper(record, seed)["segments"].gt_masks.any(0) for seed in range(200)]
    assert any(void[0, 3] for void in voids) and any(void[:2, :2].all() for void in voids)


def test_image_without_segments(tree):
    """Edge case: an annotation that is void everywhere trains on no target."""
    write_segment_ids(tree.folder / "panoptic" / "one.png", torch.zeros(8, 12, dtype=torch.int32))
    spec = tree.spec()
    segments = _mapper(spec, flip=True)(spec.load()[0] | {"segments_info": []}, 1)["segments"]
    assert len(segments) == 0 and segments.gt_masks.shape == (0, 8, 12) and segments.gt_classes.dtype == torch.int64


def test_more_segments_than_a_byte_counts(tree):
    """Edge case: 300 one-pixel segments keep their order and their pixels."""
    ids = torch.arange(1, 301).view(15, 20)
    write_segment_ids(tree.folder / "panoptic" / "one.png", ids)
    Image.new("RGB", (20, 15)).save(tree.folder / "images" / "one.bmp")
    tree.content["images"][0] |= {"height": 15, "width": 20}
    segments = [{"id": i, "category_id": 3} for i in reversed(range(1, 301))]
    tree.content["annotations"][0]["segments_info"] = segments
    spec = tree.spec()
    masks = _mapper(spec, image_size=20)(spec.load()[0])["segments"].gt_masks
    assert torch.equal(masks.flatten(1).int().argmax(1), torch.arange(299, -1, -1)) and (masks.sum((1, 2)) == 1).all()


def test_testing_item(tree):
    """Testing resizes by the shortest side, reads no annotation and draws nothing: the seed has no effect."""
    spec = tree.spec()
    record = spec.load()[0]
    (tree.folder / "panoptic" / "one.png").unlink()
    mapper = _mapper(spec, training=False, min_size_test=16)
    item = mapper(record, 1)
    assert set(item) == KEYS and item["image"].shape == (3, 16, 24) and (item["height"], item["width"]) == (8, 12)
    assert torch.equal(item["image"], mapper(record, 2)["image"])
    same = _mapper(spec, training=False)(record)["image"]
    assert same.shape == (3, 8, 12) and same[0, 7].tolist() == [200] * 6 + [100] * 6


@pytest.mark.parametrize(
    ("size", "shortest", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 640 · 800/480 = 1066.7
        ((640, 480), 800, 1333, (1067, 800)),
        ((100, 1000), 800, 1333, (133, 1333)),  # the longest side decides
        ((427, 640), 1024, 1024, (683, 1024)),  # equal limits: the longest side is 1024
        ((1, 5000), 1024, 1024, (1, 1024)),  # 0.2 pixels would be none
    ],
)
def test_shortest_edge_size(size, shortest, longest, expected):
    """Derived by hand: Detectron2's rule and rounding."""
    assert shortest_edge_size(size, shortest, longest) == expected


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((480, 640), 1024, (768, 1024)), ((640, 480), 102.4, (102, 77)), ((1, 900), 90, (1, 90))],
)
def test_fit_size(size, side, expected):
    """Derived by hand: the image just fits; no side vanishes."""
    assert fit_size(size, side) == expected


def test_colour_jitter_changes_colour_alone():
    """Invariant: a uniform picture stays uniform; each step is skipped half the time, all four in 1/16 of the items."""
    image = torch.tensor([200, 100, 50], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    results = [photometric_distort(image, torch.Generator().manual_seed(seed)) for seed in range(160)]
    assert all(result.dtype == torch.uint8 and result.shape == image.shape for result in results)
    assert all((result == result[:, :1, :1]).all() for result in results)
    assert 2 <= sum(torch.equal(result, image) for result in results) <= 24


def test_size_that_disagrees(tree):
    """Error: the picture (by its EXIF orientation) is of another size than its annotation says."""
    spec = tree.spec()
    record = spec.load()[0]
    Image.new("RGB", (8, 12)).save(record["file_name"])
    for training in (True, False):
        with pytest.raises(UserError, match=r"one\.bmp is 8×12 .* its annotation says 12×8"):
            _mapper(spec, training=training)(record)


def test_real_images(samples):
    """On the two real COCO images at scale 1, targets are all segments but the crowds, pixel for pixel."""
    folder = samples / "coco_panoptic"
    spec = coco_panoptic_spec(
        "real", json_file=folder / "panoptic.json", images=folder / "images", panoptic=folder / "panoptic"
    )
    for record in spec.load():
        segments = _mapper(spec, image_size=640)(record)["segments"]
        targets = [segment for segment in record["segments_info"] if not segment["iscrowd"]]
        assert len(targets) < len(record["segments_info"])
        assert segments.gt_masks.sum((1, 2)).tolist() == [segment["area"] for segment in targets]
        assert segments.gt_classes.tolist() == [segment["category_id"] for segment in targets]
