"""The written data sets: official formats, read back by the project's own reader, complete or redone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle_codec

from detectron2_sam.commands.prepare.generated import prepare
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.generated.scene import generate_scene
from sam_common.data.generated.specs import scene_specs
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary
from sam_common.data.images import read_image, read_segment_ids
from sam_common.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    prepare(root, train=3, test=4, seed=5, size=96)
    return root


def test_png_decodes_to_the_segments_of_the_json(root: Path):
    """Each id's pixels count its area and fill its box; the areas sum to the picture: nothing is void."""
    content = json.loads((root / "generated/panoptic_test.json").read_text())
    assert len(content["annotations"]) == 4
    for annotation in content["annotations"]:
        ids = read_segment_ids(root / "generated/panoptic_test" / annotation["file_name"]).numpy()
        segments = annotation["segments_info"]
        assert sorted(np.unique(ids)) == sorted(segment["id"] for segment in segments)
        assert sum(segment["area"] for segment in segments) == ids.size
        for segment in segments:
            rows, columns = np.nonzero(ids == segment["id"])
            x, y, width, height = segment["bbox"]
            assert len(rows) == segment["area"]
            assert (columns.min(), rows.min()) == (x, y)
            assert (columns.max() + 1, rows.max() + 1) == (x + width, y + height)


def test_the_reader_finds_what_was_drawn(root: Path):
    """Records of both splits hold the masks and classes of the scenes; JPEG changes the picture little."""
    train, test = scene_specs(root)
    assert train.load_vocabulary() == seen_vocabulary()
    assert test.load_vocabulary() == world_vocabulary()
    for spec, count in ((train, 3), (test, 4)):
        records = spec.load()
        assert len(records) == count
        for record in records:
            scene = generate_scene(5, record["image_id"], size=96, categories=spec.load_vocabulary())
            labels = read_ground_truth(record).numpy()
            for place, (category, mask) in enumerate(scene.segments()):
                assert record["segments_info"][place]["category_id"] == category
                assert np.array_equal(labels == place + 1, mask)
            picture = read_image(record["file_name"]).permute(1, 2, 0).numpy().astype(float)
            assert np.abs(picture - scene.image).mean() < 12


def test_hidden_masks_are_kept(root: Path):
    """`scenes_*.json` holds amodal and visible masks, the stack in order, and the stuff behind things."""
    kept = json.loads((root / "generated/scenes_test.json").read_text())["scenes"]
    for record in kept:
        scene = generate_scene(5, record["image_id"], size=96)
        for written, thing in zip(record["things"], scene.things, strict=True):
            assert written["category_id"] == scene.vocabulary[thing.category].id
            assert np.array_equal(rle_codec.decode(written["whole"]).astype(bool), thing.whole)
            assert np.array_equal(rle_codec.decode(written["visible"]).astype(bool), thing.visible)
        for written in record["stuff"]:
            mask = rle_codec.decode(written["whole"]).astype(bool)
            assert np.array_equal(mask, scene.stuff == written["category_id"] - 1)


def test_a_complete_split_is_kept_and_anything_else_is_redone(tmp_path: Path):
    """Same parameters: untouched. A missing picture or JSON, or another seed: written again, the same bytes."""
    parameters = {"train": 1, "test": 2, "size": 64, "workers": 1}
    prepare(tmp_path, seed=1, **parameters)
    annotation = tmp_path / "generated/panoptic_test.json"
    picture = next((tmp_path / "generated/images/test").iterdir())
    drawn = picture.read_bytes()

    picture.write_bytes(b"mark")
    prepare(tmp_path, seed=1, **parameters)
    assert picture.read_bytes() == b"mark"

    annotation.unlink()  # as after an interruption: the JSON is written last
    prepare(tmp_path, seed=1, **parameters)
    assert picture.read_bytes() == drawn

    picture.unlink()
    prepare(tmp_path, seed=1, **parameters)
    assert picture.read_bytes() == drawn

    prepare(tmp_path, seed=2, **parameters)
    assert picture.read_bytes() != drawn
    assert json.loads(annotation.read_text())["info"]["seed"] == 2


def test_a_missing_data_set_names_its_path_and_the_command(tmp_path: Path):
    """The user is told where it should be and how to make it."""
    for spec in scene_specs(tmp_path):
        for read in (spec.load, spec.load_vocabulary):
            with pytest.raises(UserError, match=r"_(train|test)\.json;.*prepare generated --") as error:
                read()
            assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("wrong", [{"train": 0}, {"test": 0}, {"seed": -1}, {"size": 16}, {"workers": 0}])
def test_parameters_out_of_range_are_named(tmp_path: Path, wrong: dict[str, int]):
    """The message names the option; nothing is written."""
    (name,) = wrong
    with pytest.raises(UserError, match=f"--{name}"):
        prepare(tmp_path, **{"train": 1, "test": 1, **wrong})
    assert not list(tmp_path.iterdir())
