"""The methods' mappers for Detectron2's loaders, `mapper=SegmentationMapper(cfg, is_train)`, and for LazyConfigs.

Called with a record of Detectron2's catalog, they draw anew at every visit of an image, by torch's generator, which
Detectron2 seeds for each worker.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable

import amsam.data.mapper
import amsam.method
import plug.data.mapper
import plug.method
import possam.data.mapper
import possam.method
from detectron2_sam.plugin.datasets import complete_record, register_datasets, spec_of
from sam_common.contracts import Record
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.engine import build_data
from sam_common.engine.build_data import common_vocabulary
from sam_common.errors import UserError


class _Mapper:
    """Detectron2's call of a mapper; `training` is the mapper's own."""

    training: bool

    def __call__(self, record: Any, seed: int | None = None) -> Any:
        """The model input of a record. Raises UserError where one of its files cannot be read."""
        if seed is None:
            seed = int(torch.randint(2**62, ())) if self.training else 0
        return super().__call__(record, seed)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(training={self.training})"


class SegmentationMapper(_Mapper, possam.data.mapper.SegmentationMapper):
    """PosSAM's mapper (see `possam.data.mapper`), of our records and of any in Detectron2's standard form.

    The classes are those of `DATASETS.TRAIN`, or of `DATASETS.TEST` for testing, or `vocabulary`.
    """

    @configurable
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        vocabulary = common_vocabulary(_specs(cfg, is_train))
        return {"vocabulary": vocabulary, "training": is_train, **possam.method.mapper_arguments(cfg)}

    def __call__(self, record: Any, seed: int | None = None) -> Any:
        labels = {"num_classes": len(self.vocabulary), "ignore_label": record.get("ignore_label", 255)}
        return super().__call__(complete_record(record, labels), seed)


class AmodalMapper(_Mapper, plug.data.mapper.AmodalMapper):
    """PLUG's mapper (see `plug.data.mapper`), of records of an amodal data set."""

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        return plug.method.mapper_arguments(cfg, training=is_train)


class FewShotMapper(_Mapper, amsam.data.mapper.FewShotMapper):
    """AM-SAM's mapper (see `amsam.data.mapper`), of records of a data set of masks."""

    @configurable
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        return amsam.method.mapper_arguments(cfg, training=is_train)


def training_records(cfg: CfgNode) -> list[Record]:
    """What our trainer would train on, for `build_detection_train_loader(cfg, dataset=…)`.

    For PLUG these are groups of at most `INPUT.INSTANCES_PER_IMAGE` objects of an image; for AM-SAM the shots, each
    with its `level`; for PosSAM every record.

    Raises:
        UserError: the data sets of `DATASETS.TRAIN` cannot be trained on together.
    """
    return list(build_data.training_set(cfg, _specs(cfg, is_train=True))[0])


def _specs(cfg: CfgNode, is_train: bool) -> list[DatasetSpec]:
    register_datasets(cfg.DATASETS.get("REGISTER", ()))
    key = "TRAIN" if is_train else "TEST"
    if not cfg.DATASETS[key]:
        raise UserError(f"DATASETS.{key} is empty; name a data set")
    return [spec_of(name) for name in cfg.DATASETS[key]]
