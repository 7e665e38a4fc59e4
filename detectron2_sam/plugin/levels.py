"""Detectron2's training loop for methods that learn at several levels and choose their weights on what is held out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from detectron2.engine import SimpleTrainer
from detectron2.engine.hooks import EvalHook, HookBase
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sam_common.engine.evaluation import flatten
from sam_common.engine.trainer import BEST, is_due, with_best
from sam_common.evaluation.evaluator import Results

logger = logging.getLogger(__name__)

Validate = Callable[[nn.Module, AbstractContextManager, Callable[[], bool]], "dict[str, Results] | None"]


class LevelTrainer(SimpleTrainer):
    """Detectron2's `SimpleTrainer` with another backward pass.

    Args:
        backward: a batch -> its losses, with the gradient of the last level left on the parameters.
    """

    def __init__(
        self, model: nn.Module, data_loader: Any, optimizer: Optimizer, backward: Callable[[Any], dict[str, Tensor]]
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self.backward = backward

    def run_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        losses = self.backward(batch)
        self.after_backward()
        self._write_metrics(losses, data_time)  # raises where a loss is not finite
        self.optimizer.step()


class ValidationHook(HookBase):
    """Validates every `period` iterations and after the last one, and keeps the best weights as `model_best`.

    A checkpoint is written before the validation of its iteration, so a resumed run begins with that.
    """

    def __init__(self, validate: Validate, period: int) -> None:
        self.validate, self.period = validate, period

    def before_train(self) -> None:
        if self.trainer.start_iter > 0:
            self.trainer.iter -= 1  # Detectron2 has set it to the next iteration
            self.after_step()
            self.trainer.iter += 1

    def after_step(self) -> None:
        trainer = self.trainer
        if trainer.iter + 1 < trainer.max_iter and not is_due(trainer.iter, self.period):
            return
        results = self.validate(bare(trainer.model), contextlib.nullcontext(), lambda: False)
        scalars = flatten(results or {})
        trainer.metrics = with_best(trainer.metrics, trainer.iter, scalars)
        trainer.storage.put_scalars(**scalars, smoothing_hint=False)
        best = trainer.metrics["best"]
        logger.info("validation after iteration %d: %s %.4f", trainer.iter, best["metric"], scalars[best["metric"]])
        if best["iteration"] == trainer.iter:
            trainer.checkpointer.save_weights(BEST)


def with_validation(hooks: list[HookBase], validate: Validate, period: int, test: Callable[[], Any]) -> list[HookBase]:
    """Detectron2's hooks with a validation instead of the tests on the way, after what saves the state.

    Args:
        test: loads the best weights and tests them; called after the last iteration.
    """
    place = next(i for i, hook in enumerate(hooks) if isinstance(hook, EvalHook))
    others = [EvalHook(0, test) if isinstance(hook, EvalHook) else hook for hook in hooks]
    return [*others[:place], ValidationHook(validate, period), *others[place:]]


def bare(model: nn.Module) -> nn.Module:
    """The model without what distributes it."""
    return model.module if isinstance(model, DistributedDataParallel) else model
