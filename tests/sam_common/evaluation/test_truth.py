"""What evaluators compare with, from each kind of record."""

from __future__ import annotations

import pytest
import torch
from pycocotools import mask as codec

from sam_common.errors import UserError
from sam_common.evaluation.truth import read_class_map, read_instances
from tests.support.worlds import VOCABULARY, instance_world, panoptic_world, rectangle, semantic_world

SQUARE = rectangle(slice(2, 6), slice(1, 5))


def test_label_maps_are_class_maps(tmp_path):
    """The value to ignore becomes -1, the others stay."""
    (record,) = semantic_world(tmp_path, [torch.tensor([[0, 255], [2, 1]])]).load()
    assert read_class_map(record).tolist() == [[0, -1], [2, 1]]


def test_panoptic_records_give_both(tmp_path):
    """Derived by hand: classes by segment, void ignored; the things as instances, with their ids in the data set."""
    info = [{"id": 5, "category_id": 20}, {"id": 4, "category_id": 30}, {"id": 9, "category_id": 30, "iscrowd": 1}]
    (record,) = panoptic_world(tmp_path, {1: [[5, 4, 4], [0, 9, 4]]}, {1: info}).load()
    assert read_class_map(record).tolist() == [[1, 2, 2], [-1, 2, 2]]
    first, second = read_instances(record, VOCABULARY)
    assert (first["category_id"], first["iscrowd"], first["area"], first["bbox"]) == (30, 0, 3, [1, 0, 2, 2])
    assert (second["category_id"], second["iscrowd"], second["area"], second["bbox"]) == (30, 1, 1, [1, 1, 1, 1])
    assert codec.decode(first["segmentation"]).tolist() == [[0, 1, 1], [0, 0, 1]]


def test_instances_say_their_area_or_it_is_counted():
    """COCO's own area decides what is small; where a record lacks it, as Detectron2's reader leaves it, pixels do."""
    (record,) = instance_world([[(0, SQUARE, False), (2, SQUARE, True)]]).load()
    record["annotations"][0]["area"] = 12.5
    del record["annotations"][1]["area"]
    first, second = read_instances(record, VOCABULARY)
    assert (first["area"], first["category_id"], first["image_id"]) == (12.5, 10, 0)
    assert (second["area"], second["category_id"], second["iscrowd"]) == (16, 30, 1)


def test_an_instance_without_a_polygon_is_empty():
    """Edge case: COCO has annotations whose polygons cover nothing; its tools would fail at an empty list."""
    (record,) = instance_world([[(0, SQUARE, False)]]).load()
    record["annotations"][0]["segmentation"] = []
    (entry,) = read_instances(record, VOCABULARY)
    assert codec.area(entry["segmentation"]) == 0 and entry["segmentation"]["size"] == [10, 10]


def test_masks_that_no_reader_of_ours_has_seen():
    """Error: COCO's tools, which draw whatever they are given, are not given edges of a hundred thousand pixels."""
    (record,) = instance_world([[(0, SQUARE, False)]]).load()
    record["annotations"][0] |= {"segmentation": [[0, 0, 99_999, 0, 0, 99_999]], "area": 1}
    with pytest.raises(UserError, match="edges"):
        read_instances(record, VOCABULARY)
