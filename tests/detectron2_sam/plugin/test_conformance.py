"""One dictionary, one meaning: what both engines feed a model, what Detectron2's readers and mapper make of the same
files, and one model judged by both sets of evaluators."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import load_coco_json, load_sem_seg
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import BitMasks
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor

import detectron2_sam
from amsam.data.worms import write_worms
from detectron2_sam.commands.train.build import build_batches
from detectron2_sam.plugin.datasets import load_standard_records, register_datasets, spec_of
from detectron2_sam.plugin.trainer import Trainer
from plug.data.annotations import boxes_of, read_amodal
from sam_common.data import catalog
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.data.label_maps import read_label_map
from sam_common.data.loader import build_test_loader
from sam_common.engine.build_data import test_set as mapped_test_set
from sam_common.masks.rle import decode_segmentation
from tests.detectron2_sam.plugin.test_engines import assert_same
from tests.support.small_cfg import small_cfg

PANOPTIC, AMODAL = "generated_test_panoptic", "generated_test_amodal"
INSTANCE, SEMANTIC, THEIRS = "scene_instances", "scene_labels", "as_detectron2_reads"


@pytest.fixture
def scenes(world: Path) -> Iterator[Path]:
    """The drawn test scenes as COCO instances (polygons, RLE and a crowd) and as label maps, in both catalogs."""
    spec, folder = catalog.get(PANOPTIC), world / "scenes"
    vocabulary, images, annotations = spec.load_vocabulary(), [], []
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number, record in enumerate(spec.load()):
        labels = read_ground_truth(record)
        classes = torch.tensor([255, *(segment["category_id"] for segment in record["segments_info"])])
        Image.fromarray(classes[labels].byte().numpy()).save(folder / "labels" / f"{number}.png")
        Image.open(record["file_name"]).save(folder / "images" / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg"} | {k: record[k] for k in ("height", "width")})
        for index, segment in enumerate(record["segments_info"]):
            if vocabulary[segment["category_id"]].is_thing:
                encoded = rle.encode(np.asfortranarray((labels == index + 1).numpy().astype(np.uint8)))
                entry = {"id": len(annotations) + 1, "image_id": number, "area": int(rle.area(encoded)), "iscrowd": 0}
                entry["category_id"] = 10 + 3 * segment["category_id"]  # ids of the file are no indices
                entry["bbox"] = rle.toBbox(encoded).tolist()
                entry["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode()}
                annotations.append(entry)
    annotations[0] |= {"segmentation": [[4.0, 4.0, 30.0, 6.0, 20.0, 40.5]], "bbox": [4.0, 4.0, 26.0, 36.5]}
    annotations[1] |= {"iscrowd": 1}
    categories = [{"id": 10 + 3 * i, "name": c.name} for i, c in enumerate(vocabulary) if c.is_thing]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "classes.txt").write_text("\n".join(category.name for category in vocabulary))
    json_file, image_root = str(folder / "instances.json"), str(folder / "images")
    label_maps = {"LABELS": str(folder / "labels"), "CLASSES": str(folder / "classes.txt")}
    register_datasets(
        [
            {"NAME": INSTANCE, "FORMAT": "coco_instance", "JSON": json_file, "IMAGES": image_root},
            {"NAME": SEMANTIC, "FORMAT": "label_maps", "IMAGES": image_root, **label_maps},
        ]
    )
    yield folder
    for name in (INSTANCE, SEMANTIC, THEIRS):
        catalog._specs.pop(name, None)
        catalog._origin.pop(name, None)
        for registry in (DatasetCatalog, MetadataCatalog):
            registry.pop(name, None)


def plain(value: Any) -> Any:
    """Dictionaries and lists all the way down, so that `assert_same` compares every tensor."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return {index: plain(entry) for index, entry in enumerate(value)}
    return value


def cfg_of(name: str, world: Path, *options: object) -> CfgNode:
    detectron2_sam.register()
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(f"configs/{name}.yaml")
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(world / "out"), *options])
    return cfg


def assert_same_batches(cfg: CfgNode, test: str) -> None:
    """Three training batches from the fourth iteration on, and all test items, of both engines' loaders."""
    loader = Trainer.build_train_loader(cfg)
    loader.sampler.start = 3
    ours = itertools.islice(build_batches(cfg, rank=0, world_size=1)(3), 3)
    for first, second in zip(ours, itertools.islice(loader, 3), strict=True):
        assert_same(plain(first), plain(second))
    loaders = build_test_loader(*mapped_test_set(cfg, spec_of(test))), Trainer.build_test_loader(cfg, test)
    for first, second in zip(*loaders, strict=True):
        assert_same(plain(first), plain(second))


@pytest.mark.parametrize("kind", ["panoptic", "instance", "semantic", "amodal", "masks"])
def test_both_engines_feed_the_same(kind: str, scenes: Path, world: Path) -> None:
    """Every kind of truth: the order of the images, what is drawn for each, and every entry, to the last bit."""
    if kind == "amodal":
        options = ("INPUT.BOXES.JITTER_TRAIN", 0.1, "SOLVER.IMS_PER_BATCH", 2)
        assert_same_batches(cfg_of("plug_T", world, *options), AMODAL)
        return
    if kind == "masks":
        write_worms(world / "worms", seed=0, first_index=0, count=6, size=64)
        entry = {"NAME": THEIRS, "FORMAT": "image_masks"}
        register_datasets([entry | {part.upper(): str(world / "worms" / part) for part in ("images", "masks")}])
        options = ("DATASETS.TRAIN", f"('{THEIRS}',)", "DATASETS.TEST", "()", "DATASETS.SHOTS", 4)
        assert_same_batches(cfg_of("amsam_T", world, *options, "SOLVER.IMS_PER_BATCH", 1), THEIRS)
        return
    name = {"panoptic": PANOPTIC, "instance": INSTANCE, "semantic": SEMANTIC}[kind]
    jitter = {"INPUT__MIN_SCALE": 0.5, "INPUT__MAX_SCALE": 2.0, "INPUT__COLOR_AUG_SSD": True}
    assert_same_batches(small_cfg(world / "out", DATASETS__TRAIN=(name,), **jitter), name)


def test_detectron2_reads_the_same_instances(scenes: Path) -> None:
    """Its reader of COCO files gives our records and classes; only an annotation's own id and area it does not keep."""
    DatasetCatalog.register(
        THEIRS, lambda: load_coco_json(str(scenes / "instances.json"), str(scenes / "images"), THEIRS)
    )
    MetadataCatalog.get(THEIRS).set(json_file=str(scenes / "elsewhere.json"), evaluator_type="coco")
    theirs, ours = load_standard_records(THEIRS), catalog.get(INSTANCE).load()
    kept = ("iscrowd", "bbox", "bbox_mode", "category_id", "segmentation")
    for first, second in zip(theirs, ours, strict=True):
        second["annotations"] = [{key: entry[key] for key in kept} for entry in second["annotations"]]
        assert_same(plain(first), plain(second))
    assert spec_of(THEIRS).load_vocabulary() == catalog.get(INSTANCE).load_vocabulary()
    assert spec_of(THEIRS).truth == "instance"


def test_detectron2_reads_the_same_label_maps(scenes: Path) -> None:
    """Its reader of two folders gives our records, but for the names of images, which it does not give."""
    names = list(MetadataCatalog.get(SEMANTIC).stuff_classes)
    DatasetCatalog.register(THEIRS, lambda: load_sem_seg(str(scenes / "labels"), str(scenes / "images")))
    MetadataCatalog.get(THEIRS).set(stuff_classes=names, sem_seg_root="elsewhere", ignore_label=255)
    for first, second in zip(load_standard_records(THEIRS), catalog.get(SEMANTIC).load(), strict=True):
        assert first.pop("image_id") == second["file_name"] and second.pop("image_id") == Path(second["file_name"]).stem
        assert_same(plain(first), plain(second))


def test_detectron2s_own_mapper_takes_our_records(scenes: Path) -> None:
    """Without augmentation: the masks, boxes, classes and labels that our readers decode; crowds are left out."""
    mapper = DatasetMapper(
        True, augmentations=[], image_format="RGB", use_instance_mask=True, instance_mask_format="bitmask"
    )
    for record in DatasetCatalog.get(INSTANCE):
        height, width = record["height"], record["width"]
        kept = [entry for entry in record["annotations"] if not entry["iscrowd"]]
        found = mapper(record)["instances"]
        masks: BitMasks = found.gt_masks
        for entry, mask in zip(kept, masks.tensor, strict=True):
            assert torch.equal(mask, decode_segmentation(entry["segmentation"], height, width, "a test"))
        assert found.gt_classes.tolist() == [entry["category_id"] for entry in kept]
    for record in DatasetCatalog.get(SEMANTIC):
        labels: Tensor = mapper(record)["sem_seg"]
        assert torch.equal(labels.masked_fill(labels == 255, -1), read_label_map(record))


def test_a_detector_learns_the_visible_parts(world: Path) -> None:
    """The instance data set that Detectron2's mapper and evaluator take: boxes and masks of what is seen, not of the
    whole, and the classes; asked for twice, it is there once."""
    name = detectron2_sam.register_visible_parts(AMODAL)
    assert name == detectron2_sam.register_visible_parts(AMODAL) == f"{AMODAL}_visible"
    try:
        mapper = DatasetMapper(
            True, augmentations=[], image_format="BGR", use_instance_mask=True, instance_mask_format="bitmask"
        )
        hidden = 0
        for seen, record in zip(DatasetCatalog.get(name), catalog.get(AMODAL).load(), strict=True):
            found = mapper(seen)["instances"]
            amodal, visible = read_amodal(record)
            assert torch.equal(found.gt_masks.tensor, visible)
            assert torch.equal(found.gt_boxes.tensor, boxes_of(record["annotations"], "visible_bbox"))
            hidden += int((amodal & ~visible).sum())
        assert hidden and MetadataCatalog.get(name).thing_classes == MetadataCatalog.get(AMODAL).thing_classes
        assert COCOEvaluator(name, output_dir=str(world / "converted"))._coco_api.getAnnIds()
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_one_model_scores_the_same_by_both(scenes: Path, world: Path) -> None:
    """Instances and semantic segmentation through Detectron2's whole evaluation: its evaluators and ours agree on all
    that they share, AP of boxes and masks and mIoU to 1e-9."""
    results = []
    for choice in ("auto", "detectron2"):
        cfg = small_cfg(world / choice, TEST__EVALUATORS=choice, DATASETS__TEST=(INSTANCE, SEMANTIC))
        for task in ("INSTANCE", "SEMANTIC"):
            cfg.MODEL.POSSAM.TEST[f"{task}_ON"] = True
        cfg.MODEL.POSSAM.TEST.SCORE_THRESHOLD = -1.0
        torch.manual_seed(0)
        results.append(Trainer.test(cfg, Trainer.build_model(cfg)))
    ours, theirs = results
    for name, task in ((INSTANCE, "bbox"), (INSTANCE, "segm"), (SEMANTIC, "sem_seg")):
        shared = {key: value for key, value in theirs[name][task].items() if "ound" not in key and "min(" not in key}
        found = {key: ours[name][task].get(key, float("nan")) for key in shared}
        assert found == pytest.approx(shared, abs=1e-9, nan_ok=True) and shared
    assert ours[SEMANTIC]["sem_seg"]["mIoU"] > 0
