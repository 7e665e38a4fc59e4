"""Detectron2's own models on `SamViTBackbone`: stock configuration, stock trainer, stock mapper."""

from __future__ import annotations

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
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as rle

import detectron2_sam
from detectron2_sam.plugin.compat import stock_config
from sam_common.data import catalog
from sam_common.data.coco_panoptic import read_ground_truth

NAME = "scenes_with_masks"


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
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 1, 2
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
    "name",
    ["COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"],
)
def test_stock_models_train_on_it(name: str, scenes: str, tmp_path: Path) -> None:
    """20 iterations of Mask R-CNN and Panoptic FPN: the loss falls, the pyramid learns, the frozen encoder does not."""
    torch.manual_seed(0)
    trainer = Recording(stock(name, tmp_path))
    before: dict[str, Any] = {key: value.clone() for key, value in trainer.model.backbone.state_dict().items()}
    trainer.train()
    assert statistics.mean(trainer.losses[-5:]) < 0.95 * statistics.mean(trainer.losses[:5]), trainer.losses
    changed = {key for key, value in trainer.model.backbone.state_dict().items() if not value.equal(before[key])}
    assert changed == {key for key in before if key.startswith("feature_pyramid")}
