"""Damaged input of any kind, drawn by hypothesis: it is read, or refused in one line; never a traceback, never a hang.

The draws are fixed (`derandomize`), so a run proves the same on every machine. `make fuzz` draws others, FUZZ_EXAMPLES
for each test.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
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
from pycocotools import mask as codec
from safetensors.torch import save

from amsam.adapter import read_adapter
from plug.data.annotations import read_amodal
from plug.data.check import Notes, find_objects
from plug.data.coco_amodal import coco_amodal_spec
from plug.data.cocoa import cocoa_spec, read_content
from possam.data.coco_instance import coco_instance_spec
from sam_common.boxes.box_files import read_box_file
from sam_common.boxes.ultralytics_detector import read_yolo
from sam_common.config import get_cfg
from sam_common.data.coco_json import parse_images
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import read_class_indices, read_image, read_segment_ids, upright_size
from sam_common.data.label_maps import label_maps_spec
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.engine.checkpoint import read_checkpoint
from sam_common.errors import UserError
from sam_common.io.pictures import open_picture
from sam_common.io.plain_pickle import read_plain_pickle
from sam_common.io.plain_yaml import NotPlain, parse_yaml
from sam_common.io.weights import read_weights
from sam_common.masks.rle import as_rle, checked_segmentation, decode_segmentation, segmentation_extent
from tests.support.segments import read_segments

DRAWN_ANEW = int(os.environ.get("FUZZ_EXAMPLES", "0"))
FUZZ = settings(
    max_examples=DRAWN_ANEW or 200,
    deadline=None,
    derandomize=not DRAWN_ANEW,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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


HEIGHT, WIDTH = 5, 7
runs = st.one_of(st.just(0), st.integers(0, 36), st.sampled_from([1, 2**31, 2**32 + 35, 2**63, -1, True, 1.0]))
run_texts = st.text("0123456789:;<=>?@ABCKLMNOPQRSTUVWXYZ_`abcmno", max_size=40)


@st.composite
def adding_up(draw: st.DrawFn) -> list[int]:
    """Run lengths of the right sum, with empty ones anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, HEIGHT * WIDTH), max_size=12)))
    return np.diff([0, *cuts, HEIGHT * WIDTH]).tolist() + [0] * draw(st.integers(0, 60))


def use_mask(value: Any) -> None:
    """What is done with a mask of a file: it is the same for pycocotools, which is given it, as for us."""
    checked = checked_segmentation(value, HEIGHT, WIDTH, "here")
    mask = decode_segmentation(checked, HEIGHT, WIDTH, "here")
    rle = as_rle(checked, HEIGHT, WIDTH)
    assert np.array_equal(codec.decode(rle), mask.numpy()) and int(codec.area(codec.merge([rle, rle]))) == mask.sum()
    assert segmentation_extent(checked, HEIGHT, WIDTH)[1] == mask.sum()


@FUZZ
@given(st.one_of(st.lists(runs, max_size=40), adding_up(), run_texts, st.text(max_size=8), json_values))
def test_run_lengths(counts: Any) -> None:
    """Numbers and texts of any kind as the counts of an RLE."""
    refused(lambda: use_mask({"size": [HEIGHT, WIDTH], "counts": counts}))


coordinates = st.one_of(st.floats(-20, 20), st.integers(-9, 9), st.floats(), st.sampled_from([1e5, -1e5, 1e300]))


@FUZZ
@given(st.lists(st.lists(coordinates, max_size=16), max_size=6))
def test_polygons(polygons: list[list[float]]) -> None:
    """Coordinates inside, outside, far off and none at all."""
    refused(lambda: use_mask(polygons))


def torch_file(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
TENSOR_FILES = [
    torch_file(STATE),
    torch_file(STATE, _use_new_zipfile_serialization=False),
    save(STATE),
    torch_file({"model": STATE, "iteration": 3, "seed": 1, "optimizer": {"state": {0: STATE}}, "config": "A: 1"}),
    pickle.dumps({"model": {"a": np.arange(3.0)}}),
]


@FUZZ
@given(data=st.data())
def test_files_of_tensors(data: st.DataObject, tmp_path: Path) -> None:
    """Every format damaged anywhere, through every reader."""
    path = tmp_path / data.draw(st.sampled_from(["a.pth", "a.safetensors"]))
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=80), *map(damaged, TENSOR_FILES))))
    for read in (read_weights, read_checkpoint, read_adapter, read_plain_pickle):
        error = refused(lambda read=read: read(path))
        assert error is None or "weights_only" not in str(error)
    refused(lambda: read_yolo(str(path)))


BOX_FILES = {
    ".json": [
        b'[{"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.9, "category_id": 1}]',
        b'[{"file_name": "a.png", "segmentation": {"size": [2, 3], "counts": "13O"}}]',
        b'{"a.png": [[0, 0, 4, 4], [1, 1, 2, 2, 0.5]]}',
    ],
    ".csv": [b"file,x0,y0,x1,y1\na.png,1,2,3,4,0.5\n"],
}


@FUZZ
@given(data=st.data())
def test_box_files(data: st.DataObject, tmp_path: Path) -> None:
    """Every form damaged anywhere, and JSON of other values."""
    suffix = data.draw(st.sampled_from(sorted(BOX_FILES)))
    path = tmp_path / f"a{suffix}"
    content = data.draw(st.sampled_from(BOX_FILES[suffix]))
    if suffix == ".json" and data.draw(st.booleans()):
        path.write_text(json.dumps(changed(data, json.loads(content))))
    else:
        path.write_bytes(data.draw(damaged(content)))
    refused(lambda: read_box_file(path))


yaml_texts = st.text(alphabet="SEDOUTPIR_VLM: 0129-.&*!{}[],<|>'\"#\n\t\x00é", max_size=60)


@FUZZ
@given(data=st.data())
def test_configurations(data: st.DataObject, tmp_path: Path) -> None:
    """Any text, and damaged bytes of a configuration, as a file; any value on the command line."""
    (tmp_path / "base.yaml").write_text("SEED: 2")
    path = tmp_path / "a.yaml"
    whole = b"_BASE_: base.yaml\nOUTPUT_DIR: 2026-11-30\nSOLVER: &s\n  STEPS: [3, 4]\n  BASE_LR: 1e-4\nSEED: 3\n"
    path.write_bytes(data.draw(st.one_of(st.binary(max_size=60), yaml_texts.map(str.encode), damaged(whole))))
    refused(lambda: get_cfg().merge_from_file(path))
    key = data.draw(st.sampled_from(["SEED", "SOLVER.STEPS", "OUTPUT_DIR", "DATASETS.REGISTER", "MODEL", "a.b"]))
    refused(lambda: get_cfg().merge_from_list([key, data.draw(st.one_of(yaml_texts, st.text(max_size=20)))]))


@FUZZ
@given(st.one_of(yaml_texts, st.text(max_size=60)))
def test_plain_yaml(text: str) -> None:
    """Any text: values that JSON could hold but for NaN, or one line."""
    try:
        json.dumps(parse_yaml(text), skipkeys=True)
    except NotPlain as error:
        assert str(error) and "\n" not in str(error)
