"""Data sets under both engines: ours in Detectron2's catalogs, and Detectron2's as specs of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode
from torch import Tensor

from detectron2_sam import methods
from sam_common.data import catalog
from sam_common.data.coco_json import words_from_name
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import upright_size
from sam_common.data.label_maps import ignore_label
from sam_common.errors import UserError
from sam_common.structures import Category, Vocabulary

_KINDS = {
    "panoptic": ("coco_panoptic_seg", "panoptic_json", "json"),
    "instance": ("coco", "json_file", "json"),
    "semantic": ("sem_seg", "sem_seg_root", "labels"),
    "amodal": ("amodal", "amodal_json", "json"),
    "masks": ("masks", "mask_root", "masks"),
}
"""Kind of truth -> the `evaluator_type` of its metadata, the attribute that names its file, and that file's role."""


class SpecMetadata(Metadata):
    """Metadata of one of our data sets; its classes are read from the annotation file when they are first asked for."""

    def __getattr__(self, key: str) -> Any:
        if not key.startswith("_") and "thing_classes" not in self.__dict__:
            try:
                spec = catalog.get(self.name)
                vocabulary = spec.load_vocabulary()
                classes = class_metadata(vocabulary, semantic=spec.truth == "semantic")
                if spec.truth == "semantic":  # 65535 where there are more classes than a byte can tell
                    classes["ignore_label"] = ignore_label(len(vocabulary))
                if spec.truth == "masks":  # label 0, which no vocabulary lists, is drawn too
                    classes["stuff_classes"] = ["background", *classes["thing_classes"]]
                self.__dict__.update(classes)
            except UserError as error:
                raise AttributeError(f"{key} of data set {self.name}: {error}") from error
            return getattr(self, key)
        return super().__getattr__(key)

    def as_dict(self) -> dict[str, Any]:
        """All attributes, the classes included if their file can be read."""
        self.get("thing_classes")
        return super().as_dict()


def register_datasets(entries: Iterable[Mapping[str, Any]] = ()) -> None:
    """Enters the builtin data sets and `entries` (`DATASETS.REGISTER`) in Detectron2's catalogs.

    A name that Detectron2 or the user's own code has registered is left alone. Called again, ours follow
    `$DETECTRON2_DATASETS`.

    Raises:
        UserError: an entry is wrong.
    """
    methods.register_datasets()
    catalog.register_from_config(entries)
    for name in catalog.names():
        if name not in DatasetCatalog:
            DatasetCatalog.register(name, partial(_load, name))
        elif not isinstance(MetadataCatalog.get(name), SpecMetadata):
            continue
        files = _file_metadata(catalog.get(name))
        known = MetadataCatalog.get(name).__dict__
        if any(key not in known or known[key] != value for key, value in files.items()):  # what a user added stays
            # Not by Metadata.set, which asks for every attribute that it sets, and so would read the file.
            MetadataCatalog[name] = SpecMetadata(name=name, **files)


def _file_metadata(spec: DatasetSpec) -> dict[str, Any]:
    """What is known of a data set without reading its files."""
    evaluator_type, key, role = _KINDS.get(spec.truth, (spec.truth, "", ""))
    known: dict[str, Any] = {"image_root": spec.files.get("images"), "evaluator_type": evaluator_type}
    if key:
        known[key] = spec.files.get(role)
    if spec.truth == "panoptic":
        known |= {"panoptic_root": spec.files.get("panoptic"), "label_divisor": 1000}
    if spec.truth != "semantic":
        known["ignore_label"] = spec.ignore_label
    return known


def _load(name: str) -> list[Any]:
    return list(catalog.get(name).load())


def register_visible_parts(name: str) -> str:
    """Enters in Detectron2's catalogs what is seen of the objects of an amodal data set, and gives the new name.

    It is an instance data set: a detector that trains on it finds the boxes that PLUG asks for. `INPUT.MASK_FORMAT` is
    to be bitmask. Called again, it changes nothing.

    Raises:
        UserError: the name is unknown, or its classes cannot be read.
    """
    visible, classes = f"{name}_visible", vocabulary_of(name)
    if visible not in DatasetCatalog:
        DatasetCatalog.register(visible, partial(_visible_records, name))
        MetadataCatalog.get(visible).set(thing_classes=[category.name for category in classes], evaluator_type="coco")
    return visible


def _visible_records(name: str) -> list[dict[str, Any]]:
    seen = {"bbox": "visible_bbox", "segmentation": "visible_segmentation"}
    same = ("bbox_mode", "category_id", "iscrowd")
    return [
        {
            **record,
            "annotations": [
                {key: entry[seen.get(key, key)] for key in (*seen, *same)} for entry in record["annotations"]
            ],
        }
        for record in spec_of(name).load()
    ]


def spec_of(name: str) -> DatasetSpec:
    """The spec of a data set that Detectron2's catalog knows; ours where it is the same files.

    Raises:
        UserError: neither catalog has the name.
    """
    if name not in DatasetCatalog:
        return catalog.get(name)
    metadata = MetadataCatalog.get(name)
    ours = catalog.get(name) if name in catalog.names() else None
    truths = {kind: metadata.get(key) for kind, (_, key, _) in _KINDS.items() if metadata.get(key)}
    own = [] if ours is None else [ours.files.get(role) for _, _, role in _KINDS.values()]
    if ours is not None and any(_same_file(*pair) for pair in product(own, truths.values())):
        return ours
    return DatasetSpec(
        name,
        load=partial(load_standard_records, name),
        load_vocabulary=partial(vocabulary_from_metadata, metadata),
        truth=next(iter(truths), "panoptic"),
        ignore_label=metadata.get("ignore_label", 255),
    )


def vocabulary_of(name: str) -> Vocabulary:
    """The classes of a data set by its name in Detectron2's catalogs.

    Raises:
        UserError: the name is unknown, or the file that lists the classes cannot be read.
    """
    return spec_of(name).load_vocabulary()


def load_standard_records(name: str) -> list[dict[str, Any]]:
    """What someone registered in `DatasetCatalog`, with what our readers add to Detectron2's standard dictionaries.

    An image's size is read from its header where the dictionary lacks it; a missing id is the file's name.

    Raises:
        UserError: an image file cannot be read.
    """
    metadata = MetadataCatalog.get(name)
    labels = {"num_classes": len(metadata.get("stuff_classes", ())), "ignore_label": metadata.get("ignore_label", 255)}
    return [_complete(record, labels) for record in DatasetCatalog.get(name)]


def _complete(record: dict[str, Any], labels: dict[str, int]) -> dict[str, Any]:
    path = str(record["file_name"])
    complete: dict[str, Any] = {"file_name": path, "image_id": _plain(record.get("image_id", path))}
    if "height" in record and "width" in record:
        complete |= {"height": int(record["height"]), "width": int(record["width"])}
    else:
        complete["height"], complete["width"] = upright_size(path)
    if "sem_seg_file_name" in record:
        complete |= {"sem_seg_file_name": str(record["sem_seg_file_name"]), **labels}
    if "pan_seg_file_name" in record:
        complete["pan_seg_file_name"] = str(record["pan_seg_file_name"])
        complete["segments_info"] = [
            {key: _plain(segment.get(key, 0)) for key in ("id", "category_id", "iscrowd", "area")}
            for segment in record["segments_info"]
        ]
    if "annotations" in record:
        complete["annotations"] = [_complete_annotation(annotation) for annotation in record["annotations"]]
    return complete


def _complete_annotation(annotation: dict[str, Any]) -> dict[str, Any]:
    """An instance as our readers give it: a box XYWH, a crowd flag, a segmentation that JSON can hold."""
    box = BoxMode.convert([float(x) for x in annotation["bbox"]], annotation["bbox_mode"], BoxMode.XYWH_ABS)
    segmentation = annotation.get("segmentation", [])
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        segmentation = {**segmentation, "counts": segmentation["counts"].decode("ascii")}
    elif not isinstance(segmentation, dict):
        segmentation = [[float(x) for x in polygon] for polygon in segmentation]
    category, crowd = _plain(annotation["category_id"]), int(annotation.get("iscrowd", 0))
    plain = {"bbox": box, "bbox_mode": int(BoxMode.XYWH_ABS), "segmentation": segmentation}
    area = {"area": _plain(annotation["area"])} if "area" in annotation else {}
    return {**plain, "category_id": category, "iscrowd": crowd, **area}


def _plain(value: Any) -> Any:
    """A number of NumPy's or torch's as Python's own."""
    return value.item() if isinstance(value, np.generic | Tensor) else value


def class_metadata(vocabulary: Vocabulary, *, semantic: bool = False) -> dict[str, Any]:
    """The attributes Detectron2 describes classes with, in its "standard" form: one index for things and stuff.

    Args:
        semantic: the truth is label maps, whose classes Detectron2 calls stuff, each of them.
    """
    names = [category.name for category in vocabulary]
    index_of = {kind: {c.id: i for i, c in enumerate(vocabulary) if c.is_thing is kind} for kind in (True, False)}
    return {
        "thing_classes": names,
        "stuff_classes": names,
        "thing_dataset_id_to_contiguous_id": index_of[True],
        "stuff_dataset_id_to_contiguous_id": {**index_of[True], **index_of[False]} if semantic else index_of[False],
    }


def metadata_of(vocabulary: Vocabulary, name: str = "vocabulary") -> Metadata:
    """Metadata of any vocabulary, as `Visualizer` takes it; it enters no catalog."""
    return Metadata(name=name, **class_metadata(vocabulary))


def vocabulary_from_metadata(metadata: Metadata) -> Vocabulary:
    """The vocabulary whose indices are Detectron2's contiguous ids.

    Three kinds of data sets come: panoptic in standard form (`thing_classes` equals `stuff_classes`), things only, and
    stuff only, as semantic segmentation has it.

    Raises:
        UserError: there are no classes, or things and stuff have indices of their own ("separated" form).
    """
    things, stuff = metadata.get("thing_classes", []), metadata.get("stuff_classes", [])
    if things and stuff and list(things) != list(stuff):
        raise UserError(
            f"data set {metadata.name} numbers things and stuff separately; use its standard form, without _separated"
        )
    names = list(things) or list(stuff)
    if not names:
        raise UserError(f"data set {metadata.name} has neither thing_classes nor stuff_classes in MetadataCatalog")
    thing_ids = _dataset_ids(metadata, "thing")
    stuff_ids = _dataset_ids(metadata, "stuff")
    ids = {**stuff_ids, **thing_ids}
    is_thing = thing_ids.keys() if stuff else range(len(names))
    return tuple(
        Category(class_name, words_from_name(class_name, index in is_thing), index in is_thing, ids.get(index, index))
        for index, class_name in enumerate(names)
    )


def _dataset_ids(metadata: Metadata, kind: str) -> dict[int, int]:
    return {index: key for key, index in metadata.get(f"{kind}_dataset_id_to_contiguous_id", {}).items()}


def _same_file(first: str | None, second: str | None) -> bool:
    return first is not None and second is not None and os.path.abspath(first) == os.path.abspath(second)
