"""The mappers in Detectron2's own loaders."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.modeling import build_model

import detectron2_sam
from detectron2_sam import AmodalMapper, FewShotMapper, SegmentationMapper, training_records
from sam_common.errors import UserError
from tests.support.small_cfg import small_cfg


def cfg_of(config: str, *options: Any) -> CfgNode:
    cfg = get_cfg()
    detectron2_sam.add_config(cfg)
    cfg.merge_from_file(detectron2_sam.get_config_file(config))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", 2, *options])
    return cfg


def test_a_visit_is_drawn_anew_and_by_torchs_generator(world: Path, tmp_path: Path) -> None:
    """Two visits of an image differ; the same state of the generator gives the same, in a copy too."""
    cfg = small_cfg(tmp_path / "out", INPUT__MIN_SCALE=0.5)
    mapper, record = SegmentationMapper(cfg, True), DatasetCatalog.get("generated_train_panoptic")[0]
    torch.manual_seed(0)
    first, second = mapper(record), mapper(record)
    torch.manual_seed(0)
    again = pickle.loads(pickle.dumps(mapper))(record)
    assert first["seed"] != second["seed"] and first["image"].shape != second["image"].shape
    assert torch.equal(first["image"], again["image"]) and first["seed"] == again["seed"]
    assert {category.name for category in mapper.vocabulary} < {
        category.name for category in SegmentationMapper(cfg, False).vocabulary
    }


def test_it_reads_a_record_in_standard_form(world: Path, tmp_path: Path) -> None:
    """Only the keys that Detectron2's readers give: the same targets as of our own record."""
    mapper = SegmentationMapper(small_cfg(tmp_path / "out"), True)
    record = DatasetCatalog.get("generated_train_panoptic")[0]
    standard = {key: record[key] for key in ("file_name", "image_id", "pan_seg_file_name")}
    standard["segments_info"] = [{key: s[key] for key in ("id", "category_id")} for s in record["segments_info"]]
    ours, theirs = mapper(record, 3), mapper(standard, 3)
    assert torch.equal(ours["segments"].gt_masks, theirs["segments"].gt_masks)
    assert torch.equal(ours["segments"].gt_classes, theirs["segments"].gt_classes)


@pytest.mark.parametrize(
    ("config", "mapper", "truth"),
    [
        ("possam_T", SegmentationMapper, "segments"),
        ("plug_T", AmodalMapper, "amodal_masks"),
        ("amsam_T", FewShotMapper, "labels"),
    ],
)
def test_detectron2s_loaders_take_it(world: Path, config: str, mapper: Any, truth: str) -> None:
    """Training batches hold the method's truth, and the model makes losses of them; test batches hold none."""
    cfg = cfg_of(config, "INPUT.IMAGE_SIZE", 64, "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 64)
    loader = build_detection_train_loader(cfg, mapper=mapper(cfg, True), dataset=training_records(cfg), num_workers=0)
    batch = next(iter(loader))
    assert len(batch) == 2 and all(truth in entry for entry in batch)
    model = build_model(cfg)
    assert all(loss.isfinite() for loss in model(batch).values())
    (tested,) = next(iter(build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=mapper(cfg, False))))
    assert "image" in tested and truth not in tested


@pytest.mark.parametrize(
    ("config", "name"),
    [("possam_T", "SegmentationMapper"), ("plug_T", "AmodalMapper"), ("amsam_T", "FewShotMapper")],
)
def test_detectron2s_own_mapper_gets_an_error_that_names_ours(world: Path, config: str, name: str) -> None:
    """Its output lacks the truth of these sets; training on what is left would be silently wrong."""
    cfg = cfg_of(config, "MODEL.MASK_ON", True, "INPUT.MASK_FORMAT", "bitmask")
    record = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0]
    record = {key: value for key, value in record.items() if key != "annotations"}
    with pytest.raises(UserError, match=rf"{name}\(cfg, True\)"):
        build_model(cfg)([DatasetMapper(cfg, True)(record)])


def test_a_set_must_be_named(world: Path, tmp_path: Path) -> None:
    """Error: there are no classes without one."""
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN is empty"):
        SegmentationMapper(small_cfg(tmp_path / "out", DATASETS__TRAIN=()), True)
