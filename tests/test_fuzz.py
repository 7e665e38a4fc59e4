"""Damaged input of any kind, drawn by hypothesis: it is read, or refused in one line; never a traceback, never a hang.

The draws are fixed (`derandomize`), so a run proves the same on every machine.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from plug.data.annotations import read_amodal
from plug.data.check import Notes, find_objects
from plug.data.coco_amodal import coco_amodal_spec
from plug.data.cocoa import cocoa_spec, read_content
from possam.data.coco_instance import coco_instance_spec
from sam_common.data.coco_json import parse_images
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_class_indices, read_image, read_segment_ids
from sam_common.data.label_maps import label_maps_spec
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.io.pictures import open_picture, upright_size
from tests.support.segments import read_segments

FUZZ = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just("../../x.png")
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def refused(action: Callable[[], Any]) -> UserError | None:
    """What the action was refused with; anything but one line of a UserError fails the test by itself."""
    try:
        action()
    except UserError as error:
        assert str(error) and "\n" not in str(error), repr(str(error))
        return error
    return None


def encoded(format: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format)
    return buffer.getvalue()


PICTURES = [
    encoded("PNG", "RGB"),
    encoded("JPEG", "RGB"),
    encoded("GIF", "P"),
    encoded("TIFF", "CMYK"),
    encoded("WEBP", "RGB"),
]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with some of them changed, taken out or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.integers(0, 40))
        content[place : place + draw(st.integers(0, length))] = draw(st.binary(max_size=length))
    return bytes(content)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged blocks
@FUZZ
@given(data=st.data())
def test_bytes_of_a_picture(data: st.DataObject, tmp_path: Path) -> None:
    """A picture of any format, damaged anywhere, or any bytes at all, through all three readers of images."""
    content = data.draw(st.one_of(st.binary(max_size=200), *map(damaged, PICTURES)))
    path = tmp_path / "a.png"
    path.write_bytes(content)
    if refused(lambda: read_image(path)) is None:
        image = read_image(path)
        assert image.dtype == torch.uint8 and image.shape[0] == 3 and image.numel()
    refused(lambda: read_segment_ids(path))
    refused(lambda: read_class_indices(path))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged blocks
@FUZZ
@given(data=st.data())
def test_exif_blocks(data: st.DataObject, tmp_path: Path) -> None:
    """A sound picture with any EXIF block is read, by all that turn it, to one size."""
    path = tmp_path / "a.png"
    tags = st.sampled_from((0x0112, 0x010F, 0x011A, 0x8769, 0x8825, 0xA005))
    value = st.integers(0, 9) | st.integers(0, 2**32 - 1)
    entry = st.tuples(tags, st.integers(0, 14), st.sampled_from((0, 1, 2, 40)), value)
    entries = data.draw(st.lists(entry, max_size=4))
    directory = b"".join(struct.pack("<HHII", *values) for values in entries)
    block = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + data.draw(st.binary(max_size=40))
    exif = data.draw(st.sampled_from((b"", b"Exif\0\0"))) + data.draw(st.just(block) | damaged(block))
    Image.new("L", (30, 20)).save(path, data.draw(st.sampled_from(("PNG", "JPEG", "WEBP"))), exif=exif)
    size = upright_size(path)
    assert size in ((20, 30), (30, 20)) and read_image(path).shape[1:] == size
    with open_picture(path) as (image, _):
        grey = image.mode == "L"
    if grey:  # WebP has colours
        assert read_class_indices(path).shape == size


def tree(folder: Path) -> dict[str, dict[str, Any]]:
    """One image with truth in both JSON formats; the files that they name are there."""
    Image.new("RGB", (30, 20)).save(folder / "a.jpg")
    ids = np.zeros((20, 30, 3), dtype=np.uint8)
    ids[:10, :, 0] = 1
    Image.fromarray(ids).save(folder / "a.png")
    image = {"id": 1, "file_name": "a.jpg", "height": 20, "width": 30}
    segment = {"id": 1, "category_id": 3, "iscrowd": 0, "area": 300, "bbox": [0, 0, 30, 10]}
    polygon = {"id": 7, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 300, "bbox": [0, 0, 30, 10]}
    run_lengths = {**polygon, "id": 8, "segmentation": {"size": [20, 30], "counts": [100, 50, 450]}}
    visible = {"size": [20, 30], "counts": "T3X1\\>"}  # 100 outside, 40 inside, 460 outside
    region = {"segmentation": [0, 0, 30, 0, 30, 10, 0, 10], "isStuff": 0, "order": 1, "visible_mask": visible}
    return {
        "panoptic": {
            "images": [image],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [segment]}],
            "categories": [{"id": 3, "name": "dog", "isthing": 1, "synonyms": ["dog", "puppy"]}],
        },
        "instance": {
            "images": [image],
            "annotations": [{**polygon, "segmentation": [[0, 0, 30, 0, 30, 10, 0, 10]]}, run_lengths],
            "categories": [{"id": 3, "name": "dog"}],
        },
        "amodal": {
            "images": [image],
            "annotations": [{**run_lengths, "inmodal_seg": visible, "inmodal_bbox": [5, 0, 2, 20]}],
            "categories": [{"id": 3, "name": "dog"}],
        },
        "cocoa": {"images": [image], "annotations": [{"image_id": 1, "regions": [region]}]},
    }


def specs(folder: Path, kind: str) -> DatasetSpec:
    path = folder / "truth.json"
    if kind == "panoptic":
        return coco_panoptic_spec("fuzz", json_file=path, images=folder, panoptic=folder)
    make = {"instance": coco_instance_spec, "amodal": coco_amodal_spec, "cocoa": cocoa_spec}[kind]
    return make("fuzz", json_file=path, images=folder)


def places(node: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value of a JSON tree."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, child in children for found in places(child, (*path, key)))]


def changed(data: st.DataObject, content: Any) -> Any:
    """The tree with some values exchanged, taken out or doubled."""
    content = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from([path for path in places(content) if path] or [(None,)]))
        if last is None:
            return content
        node = content
        for key in parents:
            node = node[key]
        action = data.draw(st.sampled_from(("exchange", "exchange", "remove", "double")))
        if action == "remove":
            del node[last]
        elif action == "double" and isinstance(node, list):
            node.append(copy.deepcopy(node[last]))
        else:
            node[last] = data.draw(json_values)
    return content


def read_everything(spec: DatasetSpec) -> None:
    """What training and evaluation read of a data set."""
    spec.load_vocabulary()
    for record in spec.load():
        json.dumps(record)
        read_segments(record)
        if spec.truth == "amodal":
            read_amodal(record)


def walk_through(path: Path) -> None:
    """What the validator of amodal files does."""
    content = read_content("fuzz", {"json": str(path), "images": ""})
    list(find_objects(content, str(path), parse_images(content, str(path), ""), Notes()))


@pytest.mark.parametrize("kind", ["panoptic", "instance", "amodal", "cocoa"])
@FUZZ
@given(data=st.data())
def test_annotations(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """Values of the JSON exchanged, removed or doubled: every record that is given out can be read to its masks."""
    (tmp_path / "truth.json").write_text(json.dumps(changed(data, tree(tmp_path)[kind])))
    refused(lambda: read_everything(specs(tmp_path, kind)))
    if kind in ("amodal", "cocoa"):
        refused(lambda: walk_through(tmp_path / "truth.json"))


@pytest.mark.parametrize("kind", ["panoptic", "instance", "amodal"])
@FUZZ
@given(data=st.data())
def test_bytes_of_annotations(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """The file itself damaged: text that is no JSON, half characters, numbers without end."""
    whole = json.dumps(tree(tmp_path)[kind]).encode()
    (tmp_path / "truth.json").write_bytes(data.draw(damaged(whole)))
    refused(lambda: read_everything(specs(tmp_path, kind)))


def test_the_undamaged_trees_are_read(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    for kind, content in tree(tmp_path).items():
        (tmp_path / "truth.json").write_text(json.dumps(content))
        assert refused(lambda kind=kind: read_everything(specs(tmp_path, kind))) is None


@FUZZ
@given(st.one_of(st.text(max_size=60), st.text(alphabet="dogcat ,;|:=#\n\tstuffthing", max_size=60)))
def test_vocabulary_strings(text: str) -> None:
    """Any text: classes that each have words, none empty and none twice, or one line that says what is wrong."""
    if refused(lambda: parse_vocabulary(text)) is None:
        vocabulary = parse_vocabulary(text)
        words = [word for category in vocabulary for word in category.synonyms]
        assert vocabulary and all(category.name and category.synonyms for category in vocabulary)
        assert all(word.strip() == word and word for word in words) and len(words) == len(set(words))


@FUZZ
@given(st.binary(max_size=80))
def test_vocabulary_files(content: bytes) -> None:
    """Any bytes as the classes of a label-map data set."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "classes.txt")
        path.write_bytes(content)
        refused(lambda: parse_vocabulary(str(path)))
        refused(lambda: label_maps_spec("fuzz", images=folder, labels=folder, classes=path).load_vocabulary())
