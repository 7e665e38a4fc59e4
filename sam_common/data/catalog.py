"""The data sets known by name. Registration is a function call; importing this file registers nothing."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from amsam.data.image_masks import image_masks_spec
from amsam.data.sets import few_shot_specs
from amsam.data.worms import worm_specs
from plug.data.coco_amodal import coco_amodal_spec
from plug.data.cocoa import cocoa_spec
from plug.data.generated import generated_amodal_specs
from possam.data.semantic_sets import semantic_specs
from sam_common.data.coco_instance import coco_instance_spec
from sam_common.data.coco_panoptic import coco_panoptic_spec
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.generated import scene_specs
from sam_common.data.label_maps import label_maps_spec
from sam_common.data.vocabulary_file import parse_vocabulary, with_words
from sam_common.errors import UserError
from sam_common.io.resources import resource
from sam_common.structures import Vocabulary

_specs: dict[str, DatasetSpec] = {}
_origin: dict[str, str] = {}  # name -> "code" | "builtin" | "config": who may replace an entry

_READERS: dict[str, tuple[Callable[..., DatasetSpec], dict[str, str], dict[str, str]]] = {
    "coco_panoptic": (coco_panoptic_spec, {"JSON": "json_file", "IMAGES": "images", "PANOPTIC": "panoptic"}, {}),
    "coco_instance": (coco_instance_spec, {"JSON": "json_file", "IMAGES": "images"}, {}),
    "label_maps": (label_maps_spec, {"IMAGES": "images", "LABELS": "labels", "CLASSES": "classes"}, {}),
    "coco_amodal": (coco_amodal_spec, {"JSON": "json_file", "IMAGES": "images"}, {}),
    "cocoa": (cocoa_spec, {"JSON": "json_file", "IMAGES": "images"}, {}),
    "image_masks": (
        image_masks_spec,
        {"IMAGES": "images", "MASKS": "masks"},
        {"CLASSES": "classes", "NAMES": "names", "MASK_SUFFIX": "mask_suffix"},
    ),
}
"""FORMAT -> the reader, the keys of an entry that it needs, and those it may have."""


def register(spec: DatasetSpec) -> None:
    """Makes a data set known. A name that is known already is left alone."""
    _put(spec, "code")


def get(name: str) -> DatasetSpec:
    """The spec of that name.

    Raises:
        UserError: no data set has that name; the message offers the nearest ones.
    """
    if name not in _specs:
        near = difflib.get_close_matches(name, _specs, n=3, cutoff=0.0)
        hint = f"did you mean {', '.join(near)}?" if near else "none is registered"
        raise UserError(f"unknown data set {name!r}: {hint} Your own go into DATASETS.REGISTER")
    return _specs[name]


def names() -> list[str]:
    """The names of all known data sets, sorted."""
    return sorted(_specs)


def datasets_root() -> Path:
    """The folder that holds the data sets: `$DETECTRON2_DATASETS`, or `./datasets`."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_builtin(root: str | os.PathLike | None = None) -> None:
    """Makes the builtin data sets known, at `root` (default: `datasets_root()`).

    Called again with another root, its own entries move there; a name that others registered is left alone.
    """
    root = Path(root) if root is not None else datasets_root()
    for spec in (
        *_coco(root),
        *_ade20k(root),
        *semantic_specs(root),
        *_kins(root),
        *_cocoa(root),
        *few_shot_specs(root),
        *scene_specs(root),
        *generated_amodal_specs(root),
        *worm_specs(root),
    ):
        _put(spec, "builtin")


def register_from_config(entries: Iterable[Mapping[str, Any]]) -> None:
    """Makes the user's data sets known, from `DATASETS.REGISTER`.

    Each entry has a NAME, a FORMAT and the keys of that format: JSON, IMAGES and PANOPTIC for coco_panoptic, JSON and
    IMAGES for coco_instance, coco_amodal and cocoa, IMAGES, LABELS and CLASSES (a vocabulary file) for label_maps,
    IMAGES and MASKS for image_masks, and CLASSES where it has more than one. Any may have a VOCABULARY, a vocabulary
    file whose synonyms its classes take. All values are texts; `~` in a path is expanded.

    Raises:
        UserError: a key is missing or unknown, a value is no text, a format is unknown, or the name belongs to another
            data set.
    """
    for number, entry in enumerate(entries):
        where = f"DATASETS.REGISTER[{number}]"
        if not isinstance(entry, Mapping) or not {"NAME", "FORMAT"} <= set(entry):
            raise UserError(f"{where} must have the keys NAME and FORMAT, it is {entry!r}")
        if not all(isinstance(value, str) and value for value in entry.values()):
            raise UserError(f"{where}: every value must be a non-empty text")
        if entry["FORMAT"] not in _READERS:
            raise UserError(f"{where}: FORMAT {entry['FORMAT']!r} is unknown; known: {', '.join(_READERS)}")
        make, needed, optional = _READERS[entry["FORMAT"]]
        if set(entry) - {"VOCABULARY", *optional} != {"NAME", "FORMAT", *needed}:
            must, may = ", ".join(("NAME", "FORMAT", *needed)), " and ".join((*optional, "VOCABULARY"))
            raise UserError(
                f"{where} must have exactly the keys {must}, and may have {may}; it has {', '.join(map(str, entry))}"
            )
        arguments = needed | optional
        paths = {arguments[key]: os.path.expanduser(path) for key, path in entry.items() if key in arguments}
        spec = make(entry["NAME"], **paths)
        if "VOCABULARY" in entry:
            spec = with_synonyms(spec, os.path.expanduser(entry["VOCABULARY"]))
        _put(spec, "config")
        if _specs[spec.name].files != spec.files:
            raise UserError(f"{where}: NAME {spec.name!r} belongs to another data set; choose another name")


def with_synonyms(spec: DatasetSpec, words: str | os.PathLike) -> DatasetSpec:
    """The same data set, whose classes have the synonyms of a vocabulary file, read when they are asked for."""

    def load_vocabulary() -> Vocabulary:
        return with_words(spec.load_vocabulary(), parse_vocabulary(Path(words)), str(words))

    return replace(spec, load_vocabulary=load_vocabulary, files={**spec.files, "vocabulary": str(words)})


def _put(spec: DatasetSpec, origin: str) -> None:
    if spec.name not in _specs or (origin != "code" and _origin[spec.name] == origin):
        _specs[spec.name], _origin[spec.name] = spec, origin


def _coco(root: Path) -> list[DatasetSpec]:
    coco, words = root / "coco", resource("configs/vocabularies/coco.txt")
    specs = []
    for split in ("train", "val"):
        annotations, images = coco / "annotations", coco / f"{split}2017"
        panoptic = coco_panoptic_spec(
            f"coco_2017_{split}_panoptic",
            json_file=annotations / f"panoptic_{split}2017.json",
            images=images,
            panoptic=coco / f"panoptic_{split}2017",
        )
        instances = coco_instance_spec(
            f"coco_2017_{split}", json_file=annotations / f"instances_{split}2017.json", images=images
        )
        semantic = label_maps_spec(
            f"coco_2017_{split}_sem_seg", images=images, labels=coco / f"panoptic_semseg_{split}2017", classes=words
        )
        specs += [with_synonyms(panoptic, words), with_synonyms(instances, words), semantic]
    return specs


def _ade20k(root: Path) -> list[DatasetSpec]:
    ade, words = root / "ADEChallengeData2016", resource("configs/vocabularies/ade20k.txt")
    specs = []
    for split, folder in (("train", "training"), ("val", "validation")):
        images = ade / "images" / folder
        panoptic = coco_panoptic_spec(
            f"ade20k_panoptic_{split}",
            json_file=ade / f"ade20k_panoptic_{split}.json",
            images=images,
            panoptic=ade / f"ade20k_panoptic_{split}",
        )
        instances = coco_instance_spec(
            f"ade20k_instance_{split}", json_file=ade / f"ade20k_instance_{split}.json", images=images
        )
        semantic = label_maps_spec(
            f"ade20k_sem_seg_{split}", images=images, labels=ade / "annotations_detectron2" / folder, classes=words
        )
        specs += [with_synonyms(panoptic, words), with_synonyms(instances, words), semantic]
    return specs


def _kins(root: Path) -> list[DatasetSpec]:
    """Of the two schemas, the later one where both files lie there: published results are on its test set."""
    specs = []
    for split, files, images in (
        ("train", ("update_train_2020.json", "instances_train.json"), "training"),
        ("val", ("update_test_2020.json", "instances_val.json"), "testing"),
    ):
        json_file = _first_file(
            [folder / file for file in files for folder in (root / "KINS", root / "KINS/annotations")]
        )
        specs.append(coco_amodal_spec(f"kins_{split}", json_file=json_file, images=root / "KINS" / images / "image_2"))
    return specs


def _cocoa(root: Path) -> list[DatasetSpec]:
    annotations, specs = root / "cocoa" / "annotations", []
    for split in ("train", "val"):
        images = root / "coco" / f"{split}2014"
        original = annotations / f"COCO_amodal_{split}2014.json"
        with_classes = annotations / f"COCO_amodal_{split}2014_with_classes.json"
        specs += [
            cocoa_spec(f"cocoa_{split}", json_file=original, images=images),
            coco_amodal_spec(f"cocoa_cls_{split}", json_file=with_classes, images=images),
        ]
    return specs


def _first_file(paths: list[Path]) -> Path:
    """The first that is there; else the first, which the error will name."""
    return next((path for path in paths if path.is_file()), paths[0])
