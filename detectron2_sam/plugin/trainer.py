"""Detectron2's `DefaultTrainer` with our optimizer, schedule, data, checkpoints and evaluators."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.data.samplers import InferenceSampler
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer
from detectron2.engine.hooks import CallbackHook, HookBase, PeriodicCheckpointer
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler

from detectron2_sam.plugin import solver
from detectron2_sam.plugin.amodal_detector import is_amodal_detector
from detectron2_sam.plugin.checkpoint import Checkpointer
from detectron2_sam.plugin.compat import amp_precision, distributed_on, without_cpu_amp
from detectron2_sam.plugin.datasets import spec_of
from detectron2_sam.plugin.evaluation import build_evaluator, evaluator_facts
from detectron2_sam.plugin.levels import LevelTrainer, bare, with_validation
from sam_common.data.loader import BatchLoader, LevelBatches, MappedRecords, item_seed
from sam_common.engine.build import build_backward
from sam_common.engine.build_data import test_set, training_set
from sam_common.engine.build_evaluation import build_validation, checkpoint_facts
from sam_common.engine.evaluation import dataset_facts, format_report, write_report
from sam_common.engine.launch import share_buffers
from sam_common.engine.trainer import BEST
from sam_common.method import backward_of
from sam_common.structures import Vocabulary

logger = logging.getLogger(__name__)


class TrainSampler(Sampler):
    """Our stateless sequence of training items for Detectron2's loader: (iteration, index of the record), endless.

    Args:
        levels: the level of each record; an iteration has a batch of every one.
        batch_size: of a level, over all processes.

    Attributes:
        start: the first iteration; set before the loader is first asked for a batch.
    """

    def __init__(self, levels: Sequence[int], *, seed: int, batch_size: int) -> None:
        self.levels, self.seed, self.batch_size, self.start = levels, seed, batch_size, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, world_size = comm.get_rank(), comm.get_world_size()
        for batch in LevelBatches(self.levels, self.seed, self.batch_size, self.start, rank, world_size):
            yield from batch

    @property
    def total_batch_size(self) -> int:
        """Items of an iteration, over all processes."""
        return self.batch_size * len(set(self.levels))


class TrainLoader(BatchLoader):
    """Detectron2's loader with our errors, and its sampler at hand."""

    def __init__(self, loader: Any, sampler: TrainSampler) -> None:
        super().__init__(loader)
        self.sampler = sampler


class Trainer(DefaultTrainer):
    """Trains a model of this project; what an iteration does is what it does under our own engine.

    Args:
        cfg: with our keys, `MODEL.DEVICE` a device and `SEED` not negative.
        config_file: named in checkpoints.

    Attributes:
        metrics: of the validations so far, as `sam_common.engine.trainer.Progress` has them.
    """

    _trainer: SimpleTrainer
    _trained_on: ClassVar[Vocabulary | None] = None
    """The classes that the model under test was trained on: Detectron2's `build_evaluator` is not told."""

    def __init__(self, cfg: CfgNode, *, config_file: str = "") -> None:
        self.config_file = config_file
        self.metrics: dict[str, Any] = {}
        with distributed_on(torch.device(cfg.MODEL.DEVICE)):
            super().__init__(without_cpu_amp(cfg))
        if isinstance(self._trainer, AMPTrainer):  # as under our engine; untested on a GPU
            self._trainer.precision = amp_precision(cfg)
            scaled = self._trainer.precision == torch.float16
            self._trainer.grad_scaler = torch.amp.GradScaler("cuda", enabled=scaled)
        if backward_of(cfg) is not None:
            self._trainer = LevelTrainer(self.model, self.data_loader, self.optimizer, self.optimizer.backward)

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's, on our checkpoints, and one that keys what is random to the iteration, so runs can go on."""
        trainer = cast(Trainer, weakref.proxy(self))
        self.checkpointer = Checkpointer(self.model, self.cfg.OUTPUT_DIR, trainer=trainer, config_file=self.config_file)
        hooks = super().build_hooks()
        for hook in hooks:
            if isinstance(hook, PeriodicCheckpointer) and hook.period == 0:
                hook.period = self.max_iter + 1  # never, as under our engine; Detectron2 would divide by it
        validate = build_validation(self.cfg, [spec_of(name) for name in self.cfg.DATASETS.TRAIN])
        if validate is not None:
            hooks = with_validation(hooks, validate, self.cfg.TEST.EVAL_PERIOD, trainer.test_best)
        return [CallbackHook(before_train=_start_data, before_step=_seed_iteration), *hooks]

    def test_best(self) -> dict[str, Any]:
        """Takes the weights that the validation chose in place of the last, and tests them."""
        path = str(Path(self.cfg.OUTPUT_DIR, f"{BEST}.pth"))
        self.checkpointer.load(path, checkpointables=[])
        self._last_eval_results = self.test(self.cfg, self.model, checkpoint=path)
        return self._last_eval_results

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Ours, whatever the model is; see `solver.build_optimizer`."""
        optimizer = solver.build_optimizer(cfg, model)
        device, processes = torch.device(cfg.MODEL.DEVICE), comm.get_world_size()
        backward = build_backward(cfg, model, optimizer, device=device, world_size=processes)
        if backward is not None:  # for `__init__`; made here, since it may give parameters a rate of their own
            optimizer.backward = backward  # type: ignore[attr-defined]
        return optimizer

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LambdaLR:
        return solver.build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> BatchLoader:
        records, mapper = training_set(cfg, [spec_of(name) for name in cfg.DATASETS.TRAIN])
        levels = [record.get("level", 1) for record in records]
        sampler = TrainSampler(levels, seed=cfg.SEED, batch_size=cfg.SOLVER.IMS_PER_BATCH)
        loader = build_detection_train_loader(
            MappedRecords(records, mapper, cfg.SEED),
            mapper=None,
            sampler=sampler,
            total_batch_size=sampler.total_batch_size,
            aspect_ratio_grouping=False,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        return TrainLoader(loader, sampler)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> BatchLoader:
        if is_amodal_detector(cfg):  # which takes images as its detector does
            return BatchLoader(super().build_test_loader(cfg, dataset_name))
        records, mapper = test_set(cfg, spec_of(dataset_name))
        loader = build_detection_test_loader(
            MappedRecords(records, mapper, seed=0),
            mapper=None,
            sampler=[(0, index) for index in InferenceSampler(len(records))],
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
        return BatchLoader(loader)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        folder = Path(cfg.OUTPUT_DIR, "inference", dataset_name)
        return build_evaluator(cfg, dataset_name, folder, training_vocabulary=cls._trained_on)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: list[DatasetEvaluator] | None = None,
        *,
        checkpoint: str = "",
    ) -> dict[str, Any]:
        """Detectron2's evaluation loop. Our evaluators learn what was trained on; each data set gets a results.json.

        Args:
            checkpoint: where the weights are from, for the report; by default they are the run's own.
        """
        share_buffers(bare(model))
        folder, seen = Path(cfg.OUTPUT_DIR, "inference"), getattr(bare(model), "training_vocabulary", None)
        if evaluators is None:
            cls._trained_on = seen or None
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        results = super().test(cfg, model, evaluators)
        judges = evaluators or [None] * len(cfg.DATASETS.TEST)
        facts = [evaluator_facts(judge, name) for judge, name in zip(judges, cfg.DATASETS.TEST, strict=True)]
        if comm.is_main_process():
            of_sets = [results] if len(cfg.DATASETS.TEST) == 1 else results.values()
            weights = {"engine": "detectron2", **checkpoint_facts(cfg, checkpoint or cfg.OUTPUT_DIR)}
            for name, metrics, judged in zip(cfg.DATASETS.TEST, of_sets, facts, strict=True):
                told = {**dataset_facts(spec_of(name), seen or None), **weights, **judged}
                write_report(folder / name / "results.json", metrics, told)
                logger.info(format_report(metrics, told))
        return results


def _start_data(trainer: Trainer) -> None:
    if isinstance(trainer.data_loader, TrainLoader):  # a subclass may have its own
        trainer.data_loader.sampler.start = trainer.start_iter


def _seed_iteration(trainer: Trainer) -> None:
    torch.manual_seed(item_seed(trainer.cfg.SEED, trainer.iter, comm.get_rank()))
