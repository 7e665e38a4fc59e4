"""Detectron2's own models on `SamViTBackbone`: stock configuration, stock trainer, stock mapper."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as rle

import detectron2_sam
from detectron2_sam.plugin.compat import stock_config
from sam_common.data import catalog
from sam_common.data.coco_panoptic import read_ground_truth
from sam_common.errors import UserError

NAME = "scenes_with_masks"
RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
FPN = ["p2", "p3", "p4", "p5", "p6"]


@pytest.fixture
def scenes(world: Path) -> Iterator[str]:
    """The four training scenes with instance annotations of one class, and a map of 0 = thing, 1 = stuff."""
    spec = catalog.get("generated_train_panoptic")
    vocabulary, records = spec.load_vocabulary(), []
    for record in spec.load():
        labels, annotations = read_ground_truth(record), []
        stuff = np.full(labels.shape, 1, dtype=np.uint8)
        for index, segment in enumerate(record["segments_info"]):
            if vocabulary[segment["category_id"]].is_thing:
                mask = (labels == index + 1).numpy()
                stuff[mask] = 0
                encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
                box = rle.toBbox(encoded).tolist()
                annotations.append(
                    {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "segmentation": encoded, "category_id": 0}
                )
        path = world / f"{record['image_id']}_stuff.png"
        Image.fromarray(stuff).save(path)
        plain = {key: record[key] for key in ("file_name", "height", "width", "image_id")}
        records.append({**plain, "annotations": annotations, "sem_seg_file_name": str(path)})
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(thing_classes=["thing"], stuff_classes=["thing", "stuff"])
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def stock(name: str, output: Path) -> CfgNode:
    """A stock configuration with our backbone and its pixels, and as little work as 64-pixel scenes need."""
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(str(stock_config(name)))
    cfg.MODEL.BACKBONE.NAME = "SamViTBackbone"
    cfg.MODEL.SAM.SIZE, cfg.MODEL.SAM.WEIGHTS = "T", "embedded"
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = "cpu", "", str(output)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (NAME,), ()
    cfg.DATALOADER.NUM_WORKERS, cfg.INPUT.MASK_FORMAT = 0, "bitmask"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP.ENABLED = (64,), False
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 1
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 50, 16
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_ITERS = 4, 20, 0.02, 1
    return cfg


class Recording(DefaultTrainer):
    """Detectron2's trainer, which also remembers the total loss of each iteration."""

    def run_step(self) -> None:
        super().run_step()
        self.losses: list[float] = getattr(self, "losses", [])
        self.losses.append(self.storage.latest()["total_loss"][0])


@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", FPN),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", FPN),
        (RETINANET, ["p3", "p4", "p5", "p6", "p7"]),
    ],
)
def test_stock_models_train_on_it(name: str, maps: list[str], scenes: str, tmp_path: Path) -> None:
    """20 iterations: the loss falls, each layer whose map is used learns, the frozen encoder does not."""
    torch.manual_seed(0)
    cfg = stock(name, tmp_path)
    cfg.MODEL.SAM.OUT_FEATURES = maps
    trainer = Recording(cfg)
    before: dict[str, Any] = {key: value.clone() for key, value in trainer.model.backbone.state_dict().items()}
    trainer.train()
    assert statistics.mean(trainer.losses[-5:]) < 0.95 * statistics.mean(trainer.losses[:5]), trainer.losses
    changed = {key for key, value in trainer.model.backbone.state_dict().items() if not value.equal(before[key])}
    learns = [f"feature_pyramid.{level}" for level in maps] + ["top_block"]
    assert changed == {key for key in before if key.startswith(tuple(learns))}


def test_a_map_that_is_not_made_says_how_to_get_it(tmp_path: Path) -> None:
    """RetinaNet asks for p7, which the backbone does not make by default; the error names the key."""
    with pytest.raises(UserError, match=r"'p7'.* MODEL\.SAM\.OUT_FEATURES"):
        build_model(stock(RETINANET, tmp_path))


def test_maps_go_by_either_name(tmp_path: Path) -> None:
    """res2 … res5 are p2 … p5; their shapes are those that `output_shape` promises."""
    cfg = stock(RETINANET, tmp_path)
    cfg.MODEL.SAM.OUT_FEATURES = [*FPN, "res2", "res5"]
    backbone = build_backbone(cfg)
    maps, shapes = backbone(torch.rand(1, 3, 64, 96)), backbone.output_shape()
    assert list(maps) == list(shapes) == cfg.MODEL.SAM.OUT_FEATURES
    assert maps["res2"].equal(maps["p2"]) and maps["res5"].equal(maps["p5"])
    for name, shape in shapes.items():
        assert maps[name].shape == (1, shape.channels, 64 // shape.stride, -(-96 // shape.stride))


@pytest.mark.parametrize("names", [[], ["p2", "p8"], ["stem"]])
def test_maps_that_cannot_be_made_are_refused(names: list[str], tmp_path: Path) -> None:
    """Before any weights are loaded into a model that would lack them."""
    cfg = stock(RETINANET, tmp_path)
    cfg.MODEL.SAM.OUT_FEATURES = names
    with pytest.raises(UserError, match="p2 … p7"):
        build_backbone(cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [("INPUT.FORMAT", "BGR"), ("MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]), ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0])],
)
def test_other_pixels_than_sams_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    """Detectron2's defaults, with which the frozen encoder would see nothing it knows; the remedy names the values."""
    cfg = stock(RETINANET, tmp_path)
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"set {key} ") as error:
        build_backbone(cfg)
    cfg.merge_from_list(shlex.split(str(error.value).split("set ")[1].replace(", ", ",")))
    cfg.MODEL.SAM.OUT_FEATURES = FPN
    assert build_backbone(cfg)
