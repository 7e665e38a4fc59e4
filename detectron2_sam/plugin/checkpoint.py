"""Detectron2's checkpointer over this project's one file format, so that a file serves under both engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import AMPTrainer, TrainerBase

from sam_common.config import UNTRAINED
from sam_common.engine import checkpoint
from sam_common.engine.checkpoint import frozen_sha256, load_trained, read_checkpoint
from sam_common.errors import UserError

if TYPE_CHECKING:
    from detectron2_sam.plugin.trainer import Trainer


class Checkpointer(DetectionCheckpointer):
    """Saves, loads and resumes as `sam_common.engine.checkpoint` says: trained part only, atomic, no pickles.

    The state of Detectron2's hooks is kept beside it, as `hooks`. To start from weights, a file that Detectron2's own
    checkpointer wrote will do.

    Args:
        model: bare, or distributed.
        trainer: for saving and resuming; without it weights are loaded only.
        config_file: named in the file.
    """

    def __init__(
        self, model: Any, save_dir: str = "", *, trainer: Trainer | None = None, config_file: str = ""
    ) -> None:
        super().__init__(model, save_dir)
        self.trainer = trainer
        self.config_file = config_file
        self._made: checkpoint.Checkpointer | None = None

    def save(self, name: str, **progress: Any) -> None:
        """Writes `<save_dir>/<name>.pth` and points `last_checkpoint` at it; main process only."""
        if not self.save_to_disk or self.trainer is None:
            return
        entries = {**_progress(self.trainer), **progress, "hooks": self.trainer.state_dict().get("hooks", {})}
        self.logger.info("saving %s", self._files(self.trainer).save(name, entries))

    def save_weights(self, name: str) -> None:
        """Writes `<save_dir>/<name>.pth`, from which no run goes on; main process only."""
        if self.save_to_disk and self.trainer is not None:
            self._files(self.trainer).save_weights(name, _progress(self.trainer))

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Loads a file's weights, and with them the state of the training unless `checkpointables` is empty.

        Raises:
            UserError: the file is damaged, holds Python objects, or is for another model or other frozen weights.
        """
        if path in ("", UNTRAINED):
            return {}
        if checkpointables == [] or self.trainer is None:
            content = read_checkpoint(_own_format(path))
            load_trained(self.model, content, path, frozen=frozen_sha256(self.model))
        else:
            content = self._files(self.trainer).load(Path(path))
            _resume(self.trainer, content)
        self.logger.info("loaded %s", path)
        return content

    def _files(self, trainer: Trainer) -> checkpoint.Checkpointer:
        """Made when first needed, since hashing the frozen weights takes a moment."""
        if self._made is None:
            self._made = checkpoint.Checkpointer(
                self.model,
                Path(self.save_dir),
                optimizer=trainer.optimizer,
                scaler=trainer._trainer.grad_scaler if isinstance(trainer._trainer, AMPTrainer) else None,
                config=trainer.cfg.dump(),
                config_file=self.config_file,
            )
        return self._made


def _progress(trainer: Trainer) -> dict[str, Any]:
    """What a file says of where the run stands; under Detectron2 no step is ever skipped."""
    plain = {"skipped": 0, "skipped_in_a_row": 0, "metrics": trainer.metrics}
    return {"iteration": trainer.iter, **plain, "seed": trainer.cfg.SEED}


def _resume(trainer: Trainer, content: dict[str, Any]) -> None:
    """Sets the trainer to the end of the file's iteration; a file of the other engine has no state of hooks."""
    iteration, schedule = content["iteration"], trainer.scheduler
    hooks = {"LRScheduler": {**schedule.state_dict(), "last_epoch": iteration + 1}, **content.get("hooks", {})}
    trainer.metrics = content["metrics"]
    # The base class's: what `DefaultTrainer` adds to it is the optimizer, which is loaded already.
    TrainerBase.load_state_dict(trainer, {"iteration": iteration, "hooks": hooks})
    for group, lr, factor in zip(trainer.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = lr * factor(iteration + 1)


def _own_format(path: str) -> str:
    if path.endswith((".pkl", ".pyth")) or "://" in path:
        raise UserError(
            f"MODEL.WEIGHTS {path}: only checkpoint files of this project or of torch are read here, never pickles"
        )
    return path
