"""Registration: by call, idempotent, and the rules of who may replace what."""

from __future__ import annotations

import pytest

from sam_common.data import catalog
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.errors import UserError
from sam_common.io.resources import resource

ENTRY = {"NAME": "mine", "FORMAT": "coco_panoptic", "JSON": "a.json", "IMAGES": "images", "PANOPTIC": "masks"}


@pytest.fixture(autouse=True)
def _empty_catalog(monkeypatch):
    monkeypatch.setattr(catalog, "_specs", {})
    monkeypatch.setattr(catalog, "_origin", {})


def _spec(name: str, root: str = "here") -> DatasetSpec:
    return DatasetSpec(name, load=list, load_vocabulary=tuple, files={"json": root})


def test_builtin_names_and_official_trees(tmp_path, monkeypatch):
    """Detectron2's and Mask2Former's names and trees, under $DETECTRON2_DATASETS; nothing is read."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    catalog.register_builtin()
    assert set(catalog.names()) >= {
        "coco_2017_train_panoptic",
        "coco_2017_val_panoptic",
        "ade20k_panoptic_train",
        "ade20k_panoptic_val",
        "generated_train_panoptic",
        "generated_test_panoptic",
        "generated_train_amodal",
        "kins_train",
        "cocoa_val",
        "cocoa_cls_val",
        "ade20k_full_sem_seg_val",
        "openvocab_pascal_ctx459_sem_seg_val",
        "openvocab_pascal_ctx59_sem_seg_val",
        "openvocab_pascal20_sem_seg_val",
        "openvocab_pascal21_sem_seg_val",
    }
    words = {"coco": str(resource("configs/vocabularies/coco.txt"))}
    words["ade20k"] = str(resource("configs/vocabularies/ade20k.txt"))
    assert catalog.get("coco_2017_val_panoptic").files == {
        "json": f"{tmp_path}/coco/annotations/panoptic_val2017.json",
        "images": f"{tmp_path}/coco/val2017",
        "panoptic": f"{tmp_path}/coco/panoptic_val2017",
        "vocabulary": words["coco"],
    }
    assert catalog.get("ade20k_panoptic_train").files == {
        "json": f"{tmp_path}/ADEChallengeData2016/ade20k_panoptic_train.json",
        "images": f"{tmp_path}/ADEChallengeData2016/images/training",
        "panoptic": f"{tmp_path}/ADEChallengeData2016/ade20k_panoptic_train",
        "vocabulary": words["ade20k"],
    }
    assert catalog.get("coco_2017_train").files == {
        "json": f"{tmp_path}/coco/annotations/instances_train2017.json",
        "images": f"{tmp_path}/coco/train2017",
        "vocabulary": words["coco"],
    }
    assert catalog.get("ade20k_instance_val").files == {
        "json": f"{tmp_path}/ADEChallengeData2016/ade20k_instance_val.json",
        "images": f"{tmp_path}/ADEChallengeData2016/images/validation",
        "vocabulary": words["ade20k"],
    }
    assert catalog.get("coco_2017_val_sem_seg").files == {
        "images": f"{tmp_path}/coco/val2017",
        "labels": f"{tmp_path}/coco/panoptic_semseg_val2017",
        "classes": words["coco"],
    }
    assert catalog.get("ade20k_sem_seg_train").files == {
        "images": f"{tmp_path}/ADEChallengeData2016/images/training",
        "labels": f"{tmp_path}/ADEChallengeData2016/annotations_detectron2/training",
        "classes": words["ade20k"],
    }
    assert [catalog.get(f"{name}_val").truth for name in ("coco_2017", "ade20k_sem_seg", "ade20k_panoptic")] == [
        "instance",
        "semantic",
        "panoptic",
    ]


def test_what_is_registered_is_left_alone():
    """Invariant: neither a second registration nor the builtin ones replace what code registered."""
    catalog.register(_spec("coco_2017_val_panoptic", "mine"))
    catalog.register(_spec("coco_2017_val_panoptic", "other"))
    catalog.register_builtin("root")
    assert catalog.get("coco_2017_val_panoptic").files == {"json": "mine"}


def test_builtin_entries_follow_the_root():
    """Registering the builtin data sets again changes nothing; with another root they move."""
    catalog.register_builtin("first")
    names = catalog.names()
    catalog.register_builtin("second")
    assert catalog.names() == names
    assert catalog.get("coco_2017_val_panoptic").files["images"] == "second/coco/val2017"


def test_unknown_name_offers_the_nearest():
    """Error: a typo is answered with the name that was meant."""
    catalog.register(_spec("coco_2017_val_panoptic"))
    with pytest.raises(UserError, match="'coco_2017_val_panotic': did you mean coco_2017_val_panoptic"):
        catalog.get("coco_2017_val_panotic")


def test_nothing_registered():
    """Edge case: an empty catalog still answers in one line."""
    with pytest.raises(UserError, match="none is registered"):
        catalog.get("coco")


def test_from_config(monkeypatch):
    """The user's files are taken as given, `~` expanded; the same entry again, or changed, replaces its own."""
    monkeypatch.setenv("HOME", "/home/user")
    catalog.register_from_config([ENTRY])
    catalog.register_from_config([ENTRY | {"JSON": "~/b.json"}])
    assert catalog.get("mine").files == {"json": "/home/user/b.json", "images": "images", "panoptic": "masks"}


def test_every_format_from_config(monkeypatch):
    """Each format takes its keys, and any of them a VOCABULARY; nothing is read before it is used."""
    monkeypatch.setenv("HOME", "/home/user")
    instances = {"NAME": "things", "FORMAT": "coco_instance", "JSON": "a.json", "IMAGES": "~/i", "VOCABULARY": "~/w"}
    labels = {"NAME": "regions", "FORMAT": "label_maps", "IMAGES": "i", "LABELS": "l", "CLASSES": "~/c.txt"}
    catalog.register_from_config([instances, labels])
    assert catalog.get("things").files == {"json": "a.json", "images": "/home/user/i", "vocabulary": "/home/user/w"}
    assert catalog.get("regions").files == {"images": "i", "labels": "l", "classes": "/home/user/c.txt"}
    assert [catalog.get(name).truth for name in ("things", "regions")] == ["instance", "semantic"]
    with pytest.raises(UserError, match=r"regions: there is no vocabulary file /home/user/c\.txt"):
        catalog.get("regions").load_vocabulary()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({key: ENTRY[key] for key in ENTRY if key != "JSON"}, r"REGISTER\[0\] must have exactly the keys NAME, FORMAT"),
        (ENTRY | {"MASKS": "m"}, "it has NAME, FORMAT, JSON, IMAGES, PANOPTIC, MASKS"),
        ("mine", "keys NAME and FORMAT, it is 'mine'"),
        (ENTRY | {"FORMAT": "coco_instance"}, "exactly the keys NAME, FORMAT, JSON, IMAGES, and may have VOCABULARY"),
        (ENTRY | {"FORMAT": "label_maps"}, "exactly the keys NAME, FORMAT, IMAGES, LABELS, CLASSES, and may"),
        (ENTRY | {"FORMAT": ["label_maps"]}, "every value must be a non-empty text"),
        (ENTRY | {"FORMAT": "voc"}, "FORMAT 'voc' is unknown; known: coco_panoptic, coco_instance, label_maps"),
        (ENTRY | {"JSON": 3}, "every value must be a non-empty text"),
        (ENTRY | {"NAME": "taken"}, "NAME 'taken' belongs to another data set"),
    ],
)
def test_wrong_entries(entry, message):
    """Error: a missing key, an unknown key, no mapping, keys of another format, an unknown format, no text, a name that
    is taken."""
    catalog.register(_spec("taken"))
    with pytest.raises(UserError, match=message):
        catalog.register_from_config([entry])
