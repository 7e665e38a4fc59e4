"""The amodal truth of the generated world: read back by the project's own reader, made again where it is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectron2_sam.commands.prepare.generated import prepare
from plug.data.annotations import read_amodal
from plug.data.generated import generated_amodal_specs
from sam_common.data.generated.scene import generate_scene
from sam_common.data.generated.vocabulary import seen_vocabulary, world_vocabulary


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    prepare(root, train=3, test=4, seed=5, size=96)
    return root


def test_the_amodal_reader_finds_whole_and_visible_things(root: Path):
    """Records of both splits hold the things of the scenes, whole and visible, and their classes; stuff is none."""
    train, test = generated_amodal_specs(root)
    assert train.load_vocabulary() == tuple(c for c in seen_vocabulary() if c.is_thing)
    assert test.load_vocabulary() == tuple(c for c in world_vocabulary() if c.is_thing)
    for spec, classes, count in ((train, seen_vocabulary(), 3), (test, world_vocabulary(), 4)):
        records = spec.load()
        assert len(records) == count and all(Path(record["file_name"]).is_file() for record in records)
        for record in records:
            scene = generate_scene(5, record["image_id"], size=96, categories=classes)
            amodal, visible = read_amodal(record)
            assert np.array_equal(amodal.numpy(), [thing.whole for thing in scene.things])
            assert np.array_equal(visible.numpy(), [thing.visible for thing in scene.things])
            assert [entry["category_id"] for entry in record["annotations"]] == [t.category for t in scene.things]


def test_an_older_split_gets_its_amodal_file(tmp_path: Path):
    """A split without it, or with one of other scenes, gets it from what is kept of the scenes; none is drawn anew."""
    parameters = {"train": 1, "test": 1, "size": 64, "workers": 1}
    prepare(tmp_path, seed=1, **parameters)
    path, picture = tmp_path / "generated/amodal_test.json", next((tmp_path / "generated/images/test").iterdir())
    content = path.read_text()
    picture.write_bytes(b"mark")
    for leave in (path.unlink, lambda: path.write_text(content.replace('"seed":1', '"seed":2'))):
        leave()
        prepare(tmp_path, seed=1, **parameters)
        assert path.read_text() == content and picture.read_bytes() == b"mark"
