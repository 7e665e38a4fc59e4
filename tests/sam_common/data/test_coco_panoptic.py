"""The reader: what it reads, and one clear line for everything that can be wrong with the files."""

from __future__ import annotations

import shutil

import pytest
import torch
from PIL import Image

from sam_common.data.coco_json import CROWD, words_from_name
from sam_common.data.coco_panoptic import coco_panoptic_spec, index_segments, read_ground_truth
from sam_common.data.images import write_segment_ids
from sam_common.errors import UserError
from sam_common.structures import Category


def test_records_and_vocabulary(tree):
    """Derived by hand: indices follow the order of `categories`, not ids; words come from synonyms or the name."""
    spec = tree.spec()
    assert spec.load_vocabulary() == (
        Category("sky-other-merged", ("sky",), False, 9),
        Category("cat", ("cat", "kitten"), True, 3),
    )
    assert spec.load() == [
        {
            "file_name": str(tree.folder / "images" / "one.bmp"),
            "image_id": 5,
            "height": 8,
            "width": 12,
            "pan_seg_file_name": str(tree.folder / "panoptic" / "one.png"),
            "segments_info": [
                {"id": 256, "category_id": 1, "iscrowd": 1, "area": 4},
                {"id": 1, "category_id": 1, "iscrowd": 0, "area": 44},
                {"id": 70000, "category_id": 0, "iscrowd": 0, "area": 47},
            ],
        }
    ]


def test_ground_truth_by_hand(tree):
    """Derived by hand: each segment has its place in segments_info plus one, void is 0; areas as the JSON says."""
    labels = read_ground_truth(tree.spec().load()[0])
    assert labels[0].tolist() == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 0]
    assert torch.bincount(labels.flatten()).tolist() == [1, 4, 44, 47]


def test_segments_are_indexed_in_any_order():
    """Edge cases: an unsorted list, ids below, between and above it, and an empty list."""
    ids = torch.tensor([[0, 5, 9], [3, 1, 7]], dtype=torch.int32)
    labels, unknown = index_segments(ids, torch.tensor([9, 3, 5], dtype=torch.int32))
    assert labels[0].tolist() == [0, 3, 1] and labels[1, 0] == 2 and unknown.tolist() == [1, 7]
    labels, unknown = index_segments(ids, torch.tensor([], dtype=torch.int32))
    assert unknown.tolist() == [1, 3, 5, 7, 9] and labels[0, 0] == 0


@pytest.mark.parametrize(
    ("name", "is_thing", "words"),
    [
        ("wall-other-merged", False, ("wall",)),
        ("tree-merged", False, ("tree",)),
        ("door-stuff", False, ("door",)),
        ("wall-brick", False, ("brick wall", "wall brick")),
        ("road, route", False, ("road", "route")),
        ("t-shirt", True, ("t-shirt",)),
        ("bed ", True, ("bed",)),
        ("other", False, ("other",)),
        ("dog,, puppy, dog", True, ("dog", "puppy")),
    ],
)
def test_words_from_name(name, is_thing, words):
    """Case table: COCO's bookkeeping is dropped, its word order offered both ways, commas separate synonyms."""
    assert words_from_name(name, is_thing) == words


def _first(content, key):
    return content[key][0]


BROKEN = {
    "no categories": (lambda c: c.pop("categories"), "'categories' is missing"),
    "empty categories": (lambda c: c.update(categories=[]), "categories is empty"),
    "category id twice": (lambda c: _first(c, "categories").update(id=3), "2 categories have the id 3"),
    "category name twice": (lambda c: _first(c, "categories").update(name="cat"), "2 categories have the name 'cat'"),
    "nameless category": (lambda c: _first(c, "categories").update(name=" "), "at least one word"),
    "empty synonym": (lambda c: _first(c, "categories").update(synonyms=["sky", ""]), "none may be empty"),
    "image id twice": (lambda c: c["images"].append(c["images"][0]), "two entries of images have the id 5"),
    "annotated twice": (lambda c: c["annotations"].append(c["annotations"][0]), "image 5: there are two"),
    "unknown image": (lambda c: _first(c, "annotations").update(image_id=6), "images has no entry with the id 6"),
    "no annotation": (lambda c: c.update(annotations=[]), "nothing is left to train or test on"),
    "no segment": (lambda c: _first(c, "annotations").update(segments_info=[]), "nothing is left to train or test on"),
    "no flag": (lambda c: _first(c, "categories").update(isthing="yes"), "'isthing' is 'yes', it must be 0 or 1"),
    "not a list": (lambda c: c.update(annotations={}), "'annotations' is of the wrong type, dict"),
    "no height": (lambda c: _first(c, "images").pop("height"), "image 5: 'height' is missing"),
    "leaves the folder": (lambda c: _first(c, "annotations").update(file_name="../a.png"), "must be a path inside"),
    "image is gone": (lambda c: _first(c, "images").update(file_name="two.jpg"), "no file of images .*two.jpg"),
    "png is gone": (lambda c: _first(c, "annotations").update(file_name="a/b.png"), "no panoptic folder .*a; put"),
    "unknown category": (
        lambda c: _first(c, "annotations")["segments_info"][0].update(category_id=4),
        "segment 256 has the category_id 4, not in categories",
    ),
    "segment id twice": (
        lambda c: _first(c, "annotations")["segments_info"][0].update(id=1),
        "two segments have the id 1",
    ),
    "segment id of void": (
        lambda c: _first(c, "annotations")["segments_info"][0].update(id=0),
        r"segment id 0 is outside 1\.\.16777215",
    ),
    "area is no number": (
        lambda c: _first(c, "annotations")["segments_info"][0].update(area="big"),
        "'area' is of the wrong type",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_json_is_one_clear_line(tree, damage, message):
    """Error: every contradiction in the JSON names the file and the entry, in one line."""
    damage(tree.content)
    with pytest.raises(UserError, match=message) as error:
        tree.spec().load()
    assert "\n" not in str(error.value)
    assert "panoptic.json" in str(error.value) or str(tree.folder) in str(error.value)


def test_not_json(tree):
    """Error: a truncated JSON, and a JSON that is no object."""
    spec = tree.spec()
    for text in ('{"images": [', "[1, 2]", "\xff"):
        (tree.folder / "panoptic.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=r"panoptic\.json"):
            spec.load()


def test_missing_data_set_names_path_and_variable(tmp_path, monkeypatch):
    """Error: the message holds the missing path, the environment variable and its value."""
    monkeypatch.setenv("DETECTRON2_DATASETS", "/somewhere")
    spec = coco_panoptic_spec("mine", json_file=tmp_path / "a.json", images=tmp_path, panoptic=tmp_path)
    for read in (spec.load, spec.load_vocabulary):
        with pytest.raises(UserError, match=r"mine: .*/a\.json; .* DETECTRON2_DATASETS \(now /somewhere\)"):
            read()


def test_missing_image_folder(tree):
    """Error: the folder is named, not its first file."""
    shutil.rmtree(tree.folder / "images")
    with pytest.raises(UserError, match=r"there is no images folder .*images;"):
        tree.spec().load()


def test_images_without_annotation_are_skipped(tree, caplog):
    """Edge case: a partly annotated data set is usable; its other images need not even be there, and are counted."""
    tree.content["images"].append({"id": 6, "file_name": "six.jpg", "height": 1, "width": 1})
    with caplog.at_level("INFO"):
        assert [record["image_id"] for record in tree.spec().load()] == [5]
    assert "1 of 2 images" in caplog.text


def test_flags_numbers_and_ids_as_other_tools_write_them(tree):
    """Equality: "0" is stuff and no crowd; ids may be texts or floats."""
    spec = tree.spec()
    sound, vocabulary = spec.load(), spec.load_vocabulary()
    sky, cat = tree.content["categories"]
    sky |= {"isthing": "0", "id": "9"}
    cat |= {"isthing": True, "id": 3.0}
    annotation = _first(tree.content, "annotations")
    annotation["image_id"] = "5"
    for segment, crowd in zip(annotation["segments_info"], ("1", None, "false"), strict=True):
        segment |= {"iscrowd": crowd, "id": str(segment["id"]), "category_id": float(segment["category_id"])}
    assert spec.load_vocabulary() == tree.spec().load_vocabulary() == vocabulary and spec.load() == sound


def test_the_root_of_the_classes(tree):
    """A supercategory that no segment uses is no class; with a list of segments that is none, the error is of that."""
    sound, vocabulary = tree.spec().load(), tree.spec().load_vocabulary()
    for entry in tree.content["categories"]:
        entry["supercategory"] = "all"
    tree.content["categories"].append({"id": 0, "name": "all", "isthing": 0})
    assert tree.spec().load() == sound and tree.spec().load_vocabulary() == vocabulary
    _first(tree.content, "annotations")["segments_info"] = 5
    with pytest.raises(UserError, match="'segments_info' is of the wrong type"):
        tree.spec().load()


def test_crowds_and_idle_classes_are_counted(tree, caplog):
    """Warnings name the crowd's segment and the class without one; an annotation of crowds only is refused."""
    tree.content["categories"].append({"id": 4, "name": "zebra", "isthing": 1})
    assert len(tree.spec().load()) == 1
    assert f"1 × {CROWD}: 256 of image 5" in caplog.text and "without an annotation: zebra" in caplog.text
    for segment in _first(tree.content, "annotations")["segments_info"]:
        segment["iscrowd"] = 1
    with pytest.raises(UserError, match="nothing is left .*3 × a crowd"):
        tree.spec().load()


def _changed(tree, change) -> dict:
    record = tree.spec().load()[0]
    ids = torch.full((8, 12), 70000)
    ids[:, :6], ids[:2, :2] = 1, 256
    write_segment_ids(record["pan_seg_file_name"], change(ids))
    return record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: ids.where(ids != 256, 257), "one.png disagrees with its JSON: segments_info lacks the ids 257"),
        (lambda ids: ids[:, :-1], "one.png is 11×8 but its JSON says 12×8"),
        (lambda ids: torch.arange(96).view(8, 12), "lacks the ids 2, 3, 4, 5, 6 and 89 more"),
    ],
)
def test_png_that_disagrees_with_its_json(tree, change, message):
    """Error: ids too much, another size; the file and the ids are named."""
    with pytest.raises(UserError, match=message):
        read_ground_truth(_changed(tree, change))


def test_ids_in_a_lossy_format(tree):
    """Error: the format is named, since it is why the ids are others."""
    record = tree.spec().load()[0]
    Image.effect_noise((12, 8), 90).convert("RGB").save(record["pan_seg_file_name"], "JPEG")
    with pytest.raises(UserError, match=r"one\.png disagrees .*JPEG"):
        read_ground_truth(record)


def test_a_segment_may_have_no_pixel(tree):
    """Edge case: ADE20K's things are pasted over its stuff and may hide all of it; the others keep their places."""
    labels = read_ground_truth(_changed(tree, lambda ids: ids.where(ids != 256, 0)))
    assert torch.bincount(labels.flatten(), minlength=4).tolist() == [4, 0, 44, 48]


def test_png_of_another_kind(tree):
    """Error: a greyscale PNG is not read as if it were RGB."""
    record = tree.spec().load()[0]
    Image.new("L", (12, 8)).save(record["pan_seg_file_name"])
    with pytest.raises(UserError, match=r"one\.png: a panoptic PNG is 8-bit RGB .* this one is L"):
        read_ground_truth(record)


def test_real_coco(samples):
    """Equality with the real files: areas of all 50 segments of two COCO images are those of the official JSON."""
    folder = samples / "coco_panoptic"
    spec = coco_panoptic_spec(
        "real", json_file=folder / "panoptic.json", images=folder / "images", panoptic=folder / "panoptic"
    )
    records = spec.load()
    for record in records:
        areas = torch.bincount(read_ground_truth(record).flatten())[1:]
        assert areas.tolist() == [segment["area"] for segment in record["segments_info"]]
    assert sum(len(record["segments_info"]) for record in records) == 50
    vocabulary = spec.load_vocabulary()
    assert len(vocabulary) == 133 and sum(category.is_thing for category in vocabulary) == 80
    assert all("merged" not in word and "-" not in word for category in vocabulary for word in category.synonyms)
