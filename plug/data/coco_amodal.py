"""Reader of COCO-format files with amodal masks: KINS in both of its schemas, COCOA-cls, and anyone's own files.

One JSON with `images`, `annotations` (one per object) and `categories`, and a folder of images. The keys of the
annotations tell the schema:

                                        whole object     what is seen of it
    KINS, update_*_2020.json            a_segm           i_segm
    KINS, instances_*.json              segmentation     inmodal_seg
    anyone's                            segmentation     visible_segmentation
    COCOA-cls, *_with_classes.json      segmentation     visible_mask; where there is none, all but invisible_mask

KINS: Qi et al., "Amodal Instance Segmentation with KINS Dataset", CVPR 2019. COCOA-cls: Follmann et al., "Learning to
See the Invisible", WACV 2019. Each mask is polygons or an RLE.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from plug.data.annotations import CROWD, HIDDEN_KEYS, RATE_KEYS, AmodalAnnotations, read_masks
from plug.structures import AmodalRecord
from sam_common.data.coco_json import (
    load_categories,
    parse_annotations,
    parse_categories,
    parse_images,
    read_json,
    warn_of_unused_classes,
)
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.data.json_values import field, flag
from sam_common.errors import UserError


@dataclass(frozen=True)
class Schema:
    """The keys of one form of annotation.

    Attributes:
        amodal, visible: of the two masks.
        boxes: of the boxes that a file may give of them, which no reader uses.
        always: every annotation has a visible mask; see `annotations.read_masks`.
    """

    amodal: str
    visible: str
    boxes: tuple[str, str]
    always: bool = True


SCHEMAS = (
    Schema("a_segm", "i_segm", ("a_bbox", "i_bbox")),
    Schema("segmentation", "inmodal_seg", ("bbox", "inmodal_bbox")),
    Schema("segmentation", "visible_segmentation", ("bbox", "visible_bbox")),
    Schema("segmentation", "visible_mask", ("bbox", "visible_bbox"), always=False),
)
_COCOA_CLS = SCHEMAS[-1]


def coco_amodal_spec(name: str, *, json_file: str | os.PathLike, images: str | os.PathLike) -> DatasetSpec:
    """The spec of a data set in one of these schemas: its JSON, its folder of images."""
    files = {"json": str(json_file), "images": str(images)}
    return DatasetSpec(
        name,
        load=partial(load_records, name, files),
        load_vocabulary=partial(load_categories, name, files["json"], all_things=True),
        truth="amodal",
        files=files,
    )


def load_records(name: str, files: Mapping[str, str]) -> list[AmodalRecord]:
    """One record per image, in the order of `images`, as `plug.data.annotations` describes them.

    What cannot be used is left out and counted in warnings; a class without objects is named in another.

    Raises:
        UserError: a file is missing, the JSON is not in one of the schemas or contradicts itself, or no object is left.
    """
    source = files["json"]
    content = read_json(name, source)
    vocabulary = parse_categories(content, source, all_things=True)
    annotations = AmodalAnnotations(source, parse_images(content, source, files["images"]))
    schema = find_schema(content, source)
    index_of = {category.id: index for index, category in enumerate(vocabulary)}
    for entry, record, known, where in parse_annotations(content, source, annotations.records, index_of):
        if flag(entry, "iscrowd", where, default=False):
            annotations.leave_out(CROWD, known["id"])
            continue
        masks = read_masks(entry, schema.amodal, schema.visible, record, where, always=schema.always)
        if isinstance(masks, str):
            annotations.leave_out(masks, known["id"])
        else:
            annotations.add(record, known, entry, masks, known["id"])
    records = annotations.finish(name)
    used = {entry["category_id"] for record in records for entry in record["annotations"]}
    warn_of_unused_classes(source, vocabulary, used)
    return records


def find_schema(content: dict, source: str) -> Schema:
    """The schema of a file: the first whose visible masks occur in it.

    Raises:
        UserError: no annotation has a visible mask.
    """
    keys = set().union(*(entry for entry in field(content, "annotations", list, source) if isinstance(entry, dict)))
    for schema in SCHEMAS:
        if schema.visible in keys:
            return schema
    if keys and keys.isdisjoint((*HIDDEN_KEYS, *RATE_KEYS)):
        known = ", ".join((*(schema.visible for schema in SCHEMAS), *HIDDEN_KEYS))
        raise UserError(f"{source}: no annotation has a mask of what is seen or hidden, by any of the keys {known}")
    return _COCOA_CLS
