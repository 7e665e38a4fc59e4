"""Data sets under both engines: ours in Detectron2's catalogs, and Detectron2's as specs of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode
from torch import Tensor

from detectron2_sam import methods
from possam.data.coco_instance import coco_instance_spec
from sam_common.data import catalog
from sam_common.data.coco_json import words_from_name
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.images import upright_size
from sam_common.data.label_maps import ignore_label
from sam_common.data.vocabulary_file import parse_vocabulary
from sam_common.errors import UserError
from sam_common.reporting.drawing import segment_color
from sam_common.structures import Category, Vocabulary
from sam_common.text import some

_KINDS = {
    "panoptic": ("coco_panoptic_seg", "panoptic_json", "json"),
    "instance": ("coco", "json_file", "json"),
    "semantic": ("sem_seg", "sem_seg_root", "labels"),
    "amodal": ("amodal", "amodal_json", "json"),
    "masks": ("masks", "mask_root", "masks"),
}
"""Kind of truth -> the `evaluator_type` of its metadata, the attribute that names its file, and that file's role."""

_WITH_LABEL_MAPS = ("ade20k_panoptic_seg", "cityscapes_panoptic_seg", "mapillary_vistas_panoptic_seg")
"""The `evaluator_type` of panoptic data sets whose records name label maps, though no attribute need name a folder."""


class SpecMetadata(Metadata):
    """Metadata of one of our data sets; its classes are read from the annotation file when they are first asked for."""

    def __getattr__(self, key: str) -> Any:
        if not key.startswith("_") and "thing_classes" not in self.__dict__:
            try:
                spec = catalog.get(self.name)
                vocabulary = vocabulary_to_draw(spec)
                classes = class_metadata(vocabulary, semantic="semantic" in {spec.truth, *spec.beside})
                if spec.truth == "semantic":  # 65535 where there are more classes than a byte can tell
                    classes["ignore_label"] = ignore_label(len(vocabulary))
                if spec.truth == "masks":  # label 0, which no vocabulary lists, is drawn too
                    classes["stuff_classes"] = ["background", *classes["thing_classes"]]
                    classes["stuff_colors"] = [[0, 0, 0], *classes["thing_colors"]]
                self.__dict__.update({**classes, **self.__dict__})
            except UserError as error:
                raise AttributeError(f"{key} of data set {self.name}: {error}") from error
            return getattr(self, key)
        return super().__getattr__(key)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in ("thing_colors", "stuff_colors"):  # ours are a proposal; Metadata takes a second value for a mistake
            self.__dict__[key] = value
        else:
            super().__setattr__(key, value)

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
        if "instance" in spec.beside:
            known["json_file"] = spec.beside["instance"].files["json"]
        if "semantic" in spec.beside:  # as Mask2Former calls it
            known |= {"evaluator_type": "ade20k_panoptic_seg", "sem_seg_root": spec.beside["semantic"].files["labels"]}
    if spec.truth != "semantic":
        known["ignore_label"] = spec.ignore_label
    return known


def _load(name: str) -> list[Any]:
    """Our records with what Detectron2's own readers add: whether a segment is a thing, and a label map beside it."""
    spec = catalog.get(name)
    records: list[Any] = list(spec.load())
    if spec.truth == "panoptic":
        is_thing = [category.is_thing for category in spec.load_vocabulary()]
        for number, record in enumerate(records):
            segments = [{**s, "isthing": is_thing[s["category_id"]]} for s in record["segments_info"]]
            records[number] = {**record, "segments_info": segments}
    if "semantic" in spec.beside:
        files = spec.beside["semantic"].files
        for record in records:
            image = Path(os.path.relpath(record["file_name"], files["images"]))
            record["sem_seg_file_name"] = str(Path(files["labels"], image.with_suffix(".png")))
    return records


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
    truth = next(iter(truths), None) or _truth_of(metadata)
    paths = {"images": metadata.get("image_root"), "panoptic": metadata.get("panoptic_root")}
    if truth in truths:
        paths[_KINDS[truth][2]] = truths[truth]
    spec = DatasetSpec(
        name,
        load=partial(load_standard_records, name),
        load_vocabulary=partial(vocabulary_from_metadata, metadata, truth),
        truth=truth,
        files=_local_files(paths),
        ignore_label=metadata.get("ignore_label", 255),
    )
    if spec.truth != "panoptic":
        return spec
    beside: dict[str, DatasetSpec] = {}
    if "instance" in truths:
        beside["instance"] = coco_instance_spec(
            f"the json_file of {name}", json_file=truths["instance"], images=metadata.get("image_root", "")
        )
    if "semantic" in truths or metadata.get("evaluator_type") in _WITH_LABEL_MAPS:
        load = partial(_label_maps, name)
        files, told = _local_files({"labels": truths.get("semantic")}), f"the label maps of {name}"
        beside["semantic"] = replace(spec, name=told, load=load, truth="semantic", files=files)
    return replace(spec, beside=beside)


def _local_files(paths: Mapping[str, str | None]) -> dict[str, str]:
    """Those of a spec, without what only Detectron2's readers can get."""
    return {role: str(path) for role, path in paths.items() if path and "://" not in str(path)}


def _truth_of(metadata: Metadata) -> str:
    """The kind of truth by `evaluator_type`, such as cityscapes_sem_seg or lvis, or else by the lists of classes."""
    evaluator_type = metadata.get("evaluator_type") or ""
    if "panoptic" in evaluator_type:
        return "panoptic"
    if "sem_seg" in evaluator_type:
        return "semantic"
    if evaluator_type:
        return "instance"
    has_things, has_stuff = (bool(metadata.get(f"{kind}_classes")) for kind in ("thing", "stuff"))
    return "panoptic" if has_things == has_stuff else "instance" if has_things else "semantic"


def _label_maps(name: str) -> list[dict[str, Any]]:
    """The records of a panoptic data set with its label maps as their truth.

    Raises:
        UserError: a record names none.
    """
    segments, records = ("pan_seg_file_name", "segments_info"), load_standard_records(name)
    if lacking := [record["file_name"] for record in records if "sem_seg_file_name" not in record]:
        raise UserError(
            f"{len(lacking)} records of data set {name} have no sem_seg_file_name, though its metadata (sem_seg_root, "
            f"evaluator_type) says that it has label maps: {some(lacking)}"
        )
    return [{key: value for key, value in record.items() if key not in segments} for record in records]


def vocabulary_to_draw(spec: DatasetSpec) -> Vocabulary:
    """The classes of a data set; of a benchmark whose annotation file is not there, those that ship.

    Raises:
        UserError: the file cannot be read, and none ships.
    """
    words, json_file = spec.files.get("vocabulary"), spec.files.get("json")
    if not words or not json_file or os.path.isfile(json_file):
        return spec.load_vocabulary()
    shipped = parse_vocabulary(Path(words))
    return tuple(category for category in shipped if category.is_thing or spec.truth != "instance")


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
        UserError: a file cannot be read.
    """
    metadata = MetadataCatalog.get(name)
    labels = {"num_classes": len(metadata.get("stuff_classes", ())), "ignore_label": metadata.get("ignore_label", 255)}
    try:
        records = DatasetCatalog.get(name)
    except OSError as error:
        raise UserError(f"data set {name} cannot be read: {error}") from error
    return [complete_record(record, labels) for record in records]


def complete_record(record: dict[str, Any], labels: dict[str, int]) -> dict[str, Any]:
    """A record in Detectron2's standard form with what our readers add to it; `labels`, where it has a label map."""
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
    colors = [list(segment_color(category.name, category.is_thing)) for category in vocabulary]
    return {
        "thing_classes": names,
        "stuff_classes": names,
        "thing_colors": colors,
        "stuff_colors": colors,
        "thing_dataset_id_to_contiguous_id": index_of[True],
        "stuff_dataset_id_to_contiguous_id": {**index_of[True], **index_of[False]} if semantic else index_of[False],
    }


def metadata_of(vocabulary: Vocabulary, name: str = "vocabulary") -> Metadata:
    """Metadata of any vocabulary, as `Visualizer` takes it; it enters no catalog."""
    return Metadata(name=name, **class_metadata(vocabulary))


def vocabulary_from_metadata(metadata: Metadata, truth: str = "panoptic") -> Vocabulary:
    """The vocabulary whose indices are Detectron2's contiguous ids.

    Things and stuff must share one range of indices. Whether they do, their maps from the ids of the data set say; the
    lists of names may both be of all classes (Detectron2's standard form), or `thing_classes` of the things alone
    (Mask2Former's form), or only one of them may be there.

    Args:
        truth: the kind, which decides between two lists without maps: Cityscapes has 8 things and 19 classes of pixels.

    Raises:
        UserError: there are no classes, things and stuff have indices of their own (Panoptic FPN's separated form), or
            no list names every index.
    """
    name = metadata.name
    things, stuff = (list(metadata.get(f"{kind}_classes", ())) for kind in ("thing", "stuff"))
    if not things and not stuff:
        raise UserError(f"data set {name} has neither thing_classes nor stuff_classes in MetadataCatalog")
    thing_ids, stuff_ids = (_dataset_ids(metadata, kind) for kind in ("thing", "stuff"))
    if truth != "panoptic" and not thing_ids and not stuff_ids and things and stuff:
        things, stuff = ([], stuff) if truth == "semantic" else (things, [])
    if not thing_ids and (not stuff or stuff[: len(things)] == things != stuff):
        thing_ids = {index: index for index in range(len(things))}  # no map: the order of the list
    for index in sorted(thing_ids.keys() & stuff_ids.keys()):
        if thing_ids[index] != stuff_ids[index]:
            raise UserError(
                f"data set {name} numbers things and stuff separately: index {index} stands for the ids "
                f"{thing_ids[index]} and {stuff_ids[index]}; use its form with one range, without _separated"
            )
    ids, length = {**stuff_ids, **thing_ids}, max(len(things), len(stuff))
    if max(ids, default=-1) >= length or (things and stuff and not ids and things != stuff):
        raise UserError(
            f"data set {name} has {len(things)} thing_classes and {len(stuff)} stuff_classes, which do not name the "
            "indices of its maps *_dataset_id_to_contiguous_id; give stuff_classes all classes, by their indices"
        )
    of_things, of_stuff = (
        first if len(first) == length else second for first, second in ((things, stuff), (stuff, things))
    )
    names = [(of_things if index in thing_ids else of_stuff)[index] for index in range(length)]
    return tuple(
        Category(class_name, words_from_name(class_name, index in thing_ids), index in thing_ids, ids.get(index, index))
        for index, class_name in enumerate(names)
    )


def _dataset_ids(metadata: Metadata, kind: str) -> dict[int, int]:
    """Index -> id of the data set."""
    return {index: key for key, index in metadata.get(f"{kind}_dataset_id_to_contiguous_id", {}).items()}


def _same_file(first: str | None, second: str | None) -> bool:
    return first is not None and second is not None and os.path.abspath(first) == os.path.abspath(second)
