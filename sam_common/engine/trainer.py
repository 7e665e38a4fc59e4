"""The training loop. One iteration is a function of (weights, optimizer, seed, iteration): resuming repeats none.

A checkpoint is the state right after its iteration. An evaluation or validation that is due then comes after it and
changes nothing but `Progress.metrics`; a resumed run does it again at the iteration that it goes on from. So it does
not matter what ended the run, or where.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from sam_common.contracts import Batch, Losses
from sam_common.data.loader import item_seed
from sam_common.engine.checkpoint import Checkpointer
from sam_common.engine.evaluation import flatten
from sam_common.engine.logging import MetricsWriter
from sam_common.engine.optimizer import trainable_parameters
from sam_common.errors import Interrupted, UserError
from sam_common.evaluation.evaluator import Results
from sam_common.layers.processes import gather
from sam_common.signals import StopFlag, stop_on_signals
from sam_common.text import first_line

logger = logging.getLogger(__name__)

Evaluate = Callable[[int, Callable[[], bool]], "dict[str, Results] | None"]
Backward = Callable[[Batch], Losses]
BEST = "model_best"

MAX_SKIPPED_IN_A_ROW = 10
_GO_ON = "correct the cause, then give the same command again (train with --resume)"
UNUSED = "_ddp_params_and_buffers_to_ignore"
"""torch's name for a model's list of parameters that take no part: processes do not wait for their gradients."""


@dataclass(frozen=True)
class Plan:
    """How long to train, what to do on the way. Periods are in iterations; 0 means never.

    Attributes:
        clip_norm: largest norm of the gradient of the whole model; infinity does not clip.
        norm_type: which norm.
        accumulate: parts in which each process does its share of an iteration's batch, one after the other.
        seed: keys the random numbers of every iteration.
        log_period: between the lines of losses in the log and in metrics.json.
    """

    max_iter: int
    checkpoint_period: int = 0
    eval_period: int = 0
    clip_norm: float = math.inf
    norm_type: float = 2.0
    accumulate: int = 1
    seed: int = 0
    log_period: int = 20


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint.

    Attributes:
        iteration: the last one done, from 0; -1 before the first.
        skipped: steps skipped for a loss or gradient that was not finite, in all and without interruption.
        metrics: `last` results, and `best`: the greatest first metric of the first task of the first data set.
        losses: those of the next line of losses, or of the one just written; the finite ones.
    """

    iteration: int = -1
    skipped: int = 0
    skipped_in_a_row: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    losses: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Trains `model` as `plan` says.

    Args:
        fabric: launched; gives device, precision and the other processes.
        model: `model(batch)` is a dictionary of losses. To accumulate, `model(part, whole=batch)` divides them by what
            is counted in the whole batch, over all processes, so that those of its parts add up to those of the batch.
        optimizer: over the model's parameters, each group with its `base_lr`.
        lr_factor: iteration -> learning rate over base learning rate.
        batches: first iteration -> this rank's batches from there on, without end.
        checkpointer: of the same model and optimizer.
        evaluate: (iteration, stopped) -> results of each data set, or None when `stopped()` ended it.
        validate: likewise, instead of `evaluate` on the way. The weights of its best result are kept, as
            `model_best`, and are those that `evaluate` is given in the end.
        backward: a batch -> its losses, with their gradient left on the parameters; by default that of the model's
            losses. A model that learns at several levels takes the steps of all but the last of them in it.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        plan: Plan,
        lr_factor: Callable[[int], float],
        batches: Callable[[int], Iterable[Batch]],
        checkpointer: Checkpointer,
        evaluate: Evaluate,
        validate: Evaluate | None = None,
        backward: Backward | None = None,
    ) -> None:
        self.fabric, self.plan, self.lr_factor = fabric, plan, lr_factor
        self.batches, self.checkpointer, self.evaluate = batches, checkpointer, evaluate
        self.validate = validate
        self.backward = backward or self._backward
        self.has_levels = backward is not None
        self.module, self.optimizer = fabric.setup(model, optimizer)
        self.progress = Progress()
        self.saved: Path | None = None  # the file that holds the state as it is now, if any does
        # What restores the state after the last iteration while a step is under way; None where nothing can.
        self._before: dict[str, Tensor] | None = {}

    def resume(self, path: Path) -> None:
        """Goes on from a checkpoint of this run. Raises UserError where it does not fit."""
        content = self.checkpointer.load(path)
        self.progress = Progress(**{f.name: content[f.name] for f in fields(Progress) if f.name in content})
        self.saved = path
        logger.info("resuming from %s at iteration %d", path, self.progress.iteration + 1)

    def train(self, writer: MetricsWriter | None = None) -> dict[str, Results]:
        """Trains to the end and evaluates; the results of each data set.

        Args:
            writer: of the metrics, on rank 0.

        Raises:
            Interrupted: a signal came; the state at the end of that iteration is saved.
            UserError: from the data or the disk, or too many steps in a row were not finite, or no memory was left.
                The state is saved then too, as it is where any other exception is raised.
        """
        if self.fabric.is_global_zero and self.progress.iteration + 1 < self.plan.max_iter:
            self.checkpointer.check_space()
        with stop_on_signals() as stop, self._saving_before_errors():
            if self.progress.iteration >= 0:
                if writer is not None and not writer.has_losses:
                    self._log_losses(writer)
                self._measure(stop, writer)
            for iteration in self._iterations(stop, writer):
                if self._is_last() or is_due(iteration, self.plan.checkpoint_period):
                    self._save()
                self._measure(stop, writer)
            if self.validate is not None:
                self._load_best()
            return self._evaluate(self.evaluate, stop, writer)

    def _iterations(self, stop: StopFlag, writer: MetricsWriter | None) -> Iterator[int]:
        """Does the iterations that are left and yields the number of each one done."""
        start, end = self.progress.iteration + 1, self.plan.max_iter
        if start >= end:
            return
        numbers = tqdm(range(start, end), "train", end, initial=start, leave=False, disable=None if writer else True)
        begin = perf_counter()
        for iteration, batch in zip(numbers, self.batches(start), strict=False):
            data_time = perf_counter() - begin
            stopped = self._step(iteration, batch, stop)
            if writer is not None:
                writer.add_times(perf_counter() - begin, data_time)
                self._log_losses(writer)
            if iteration == start and not self.has_levels:
                self._warn_of_idle(iteration)
            if self.progress.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                self._give_up(batch)
            if stopped:
                self._leave(stop)
            yield iteration
            begin = perf_counter()

    def _log_losses(self, writer: MetricsWriter) -> None:
        """Writes a line of losses, if one is due."""
        progress = self.progress
        if self._is_last() or is_due(progress.iteration, self.plan.log_period):
            lr = self.optimizer.param_groups[0]["base_lr"] * self.lr_factor(progress.iteration)
            writer.losses(progress.iteration, progress.losses, lr=lr, skipped=progress.skipped)

    def _is_last(self) -> bool:
        return self.progress.iteration + 1 >= self.plan.max_iter

    @contextlib.contextmanager
    def _saving_before_errors(self) -> Iterator[None]:
        """Where an error ends the run, saves the iterations done so far before it goes on.

        Ranks are equal between iterations, so the one that met it saves, without waiting for the others.
        """
        try:
            yield
        except Interrupted:
            raise
        except Exception as error:
            state = self._save_what_is_done() if self.progress.iteration >= 0 else "no iteration was done yet"
            if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
                told = first_line(error)
                raise UserError(f"out of memory ({told}): docs/training.md says what needs less; {state}") from error
            if isinstance(error, UserError):
                raise UserError(f"{error}; {state}") from error
            logger.error(state)
            raise

    def _save_what_is_done(self) -> str:
        """Saves the state after the last iteration done, unless a step was broken off that had changed it; in words."""
        if self.saved is None and self._before is not None:
            for name, buffer in self.checkpointer.model.named_buffers():
                if name in self._before:
                    buffer.copy_(self._before[name])
            with contextlib.suppress(UserError):  # it may be what ended the run
                self.saved = self._write(self._path())
        if self.saved is None:
            return f"the last iterations could not be saved, an earlier state may be there: {_GO_ON}"
        return f"the state is saved in {self.saved}: {_GO_ON}"

    def _step(self, iteration: int, batch: Batch, stop: StopFlag) -> bool:
        """One iteration; whether any rank was asked to stop."""
        torch.manual_seed(item_seed(self.plan.seed, iteration, self.fabric.global_rank))
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.lr_factor(iteration)
        self.optimizer.zero_grad()
        self._before = None if self.has_levels else self.checkpointer.trained_buffers()
        losses = self.backward(batch)
        norm = self._clip()
        # One reduction carries everything the ranks must agree on; a NaN of one rank is a NaN for all.
        numbers = [*losses.values(), norm, torch.tensor(float(stop.signum > 0))]
        shared = torch.stack([number.detach().float().to(self.fabric.device) for number in numbers])
        *values, norm_value, stopped = cast(Tensor, self.fabric.all_reduce(shared, reduce_op="mean")).tolist()
        reduced = dict(zip(losses, values, strict=True))
        bad = [name for name, value in {**reduced, "gradient": norm_value}.items() if not math.isfinite(value)]
        self._before, self.saved = None, None
        if bad:
            self._skip(iteration, batch, bad)
        else:
            self.progress.skipped_in_a_row = 0
            self.optimizer.step()
        if is_due(iteration - 1, self.plan.log_period):
            self.progress.losses = []
        if all(map(math.isfinite, values)):
            self.progress.losses.append(reduced)
        self.progress.iteration, self._before = iteration, {}
        return stopped > 0

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of this rank's batch, part after part, and their gradient; ranks exchange it with the last."""
        size = len(batch) // self.plan.accumulate
        context = {"whole": batch} if size < len(batch) else {}
        losses: dict[str, Tensor] = {}
        for start in range(0, len(batch), size):
            with self.fabric.no_backward_sync(self.module, enabled=start + size < len(batch)):
                part: dict[str, Tensor] = self.module(batch[start : start + size], **context)
                self.fabric.backward(torch.stack(list(part.values())).sum())
            losses = {name: losses.get(name, 0) + loss.detach() for name, loss in part.items()}
        return losses

    def _clip(self) -> Tensor:
        """Clips the gradient of the whole model and returns the norm that it had."""
        clip = {"max_norm": self.plan.clip_norm, "norm_type": self.plan.norm_type}
        norm = self.fabric.clip_gradients(self.module, self.optimizer, **clip, error_if_nonfinite=False)
        return cast(Tensor, norm)

    def _warn_of_idle(self, iteration: int) -> None:
        model = self.checkpointer.model
        known = getattr(model, UNUSED, ())
        idle = [name for name, p in trainable_parameters(model).items() if p.grad is None and name not in known]
        if idle:
            logger.warning("iteration %d: no gradient reaches %s", iteration, ", ".join(idle))

    def _skip(self, iteration: int, batch: Batch, bad: list[str]) -> None:
        """Counts a step that is not taken and names its images; every rank comes here together."""
        scaler = self.checkpointer.scaler
        if scaler is not None:
            scaler.update()  # the gradients were unscaled: a smaller scale if that is what overflowed
        self.progress.skipped += 1
        self.progress.skipped_in_a_row += 1
        images = self._images(batch)
        logger.warning("iteration %d skipped: %s not finite; images: %s", iteration, ", ".join(bad), images)

    def _images(self, batch: Batch) -> str:
        """The images of an iteration; every rank asks together."""
        return ", ".join(name for names in gather([str(entry["file_name"]) for entry in batch]) for name in names)

    def _give_up(self, batch: Batch) -> NoReturn:
        self.progress.skipped_in_a_row = 0
        self._save()
        raise UserError(
            f"{MAX_SKIPPED_IN_A_ROW} iterations in a row gave no finite loss and gradient, the last on "
            f"{self._images(batch)}: look at these images or lower SOLVER.BASE_LR"
        )

    def _path(self) -> Path:
        name = "model_final" if self._is_last() else f"model_{self.progress.iteration:07d}"
        return self.checkpointer.directory / f"{name}.pth"

    def _write(self, path: Path) -> Path:
        return self.checkpointer.save(path.stem, self._entries())

    def _entries(self) -> dict[str, Any]:
        return {"seed": self.plan.seed, **asdict(self.progress)}

    def _save(self) -> Path:
        """Saves the state after the last iteration unless it is saved already, as `model_final` when training is done.

        No rank leaves before it is written.
        """
        if self.saved is None:
            path = self._path()
            if self.fabric.is_global_zero:
                self._write(path)
                logger.info("saved %s", path)
            self.fabric.barrier()
            self.saved = path
        return self.saved

    def _measure(self, stop: StopFlag, writer: MetricsWriter | None) -> None:
        """Validates or evaluates, if that is due after the last iteration done."""
        due = is_due(self.progress.iteration, self.plan.eval_period)
        if self.validate is not None:
            if due or self._is_last():
                self._validate(self.validate, stop, writer)
        elif due and not self._is_last():
            self._evaluate(self.evaluate, stop, writer)

    def _validate(self, validate: Evaluate, stop: StopFlag, writer: MetricsWriter | None) -> None:
        """Validates, and keeps the weights if they are the best so far."""
        self._evaluate(validate, stop, writer)
        if self.progress.metrics.get("best", {}).get("iteration") == self.progress.iteration:
            if self.fabric.is_global_zero:
                self.checkpointer.save_weights(BEST, self._entries())
            self.fabric.barrier()

    def _load_best(self) -> None:
        """Takes the best weights in place of the last; the run may have ended before any could be measured."""
        best = self.progress.metrics.get("best")
        if best is not None:
            self.checkpointer.load_weights(self.checkpointer.directory / f"{BEST}.pth")
            logger.info("best of the validation: iteration %d, %s %.4f", *best.values())

    def _evaluate(self, evaluate: Evaluate, stop: StopFlag, writer: MetricsWriter | None) -> dict[str, Results]:
        results = evaluate(self.progress.iteration, lambda: stop.signum > 0)
        if results is None:
            self._leave(stop)
        scalars = flatten(results)
        self.progress.metrics = with_best(self.progress.metrics, self.progress.iteration, scalars)
        if writer is not None and scalars:
            writer.scalars(self.progress.iteration, scalars)
        return results

    def _leave(self, stop: StopFlag) -> NoReturn:
        """Saves and ends the run because a signal came, here or at another rank."""
        raise Interrupted(
            f"stopped after iteration {self.progress.iteration + 1} of {self.plan.max_iter}; the state is saved in "
            f"{self._save()}: go on with the same command and --resume",
            stop.signum or signal.SIGTERM,
        )


def with_best(metrics: dict[str, Any], iteration: int, scalars: dict[str, float]) -> dict[str, Any]:
    """`Progress.metrics` after new results, given the ones before."""
    if not scalars:
        return metrics
    name, value = next(iter(scalars.items()))
    best = metrics.get("best", {"value": -math.inf})
    entry = {"iteration": iteration, "metric": name, "value": value}
    return {"last": scalars, "best": entry if value > best["value"] else best}


def is_due(iteration: int, period: int) -> bool:
    """Whether what is done every `period` iterations, 0 for never, is done after this one."""
    return period > 0 and (iteration + 1) % period == 0
