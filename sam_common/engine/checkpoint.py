"""Checkpoints: the trained part of a model and what a run needs to go on, in one plain file.

    model            trainable parameters, persistent buffers outside frozen modules, extra state
    frozen_sha256    first name of each frozen part -> SHA-256 of the weights it was trained beside
    optimizer, scaler, iteration (of the last step done, from 0), seed, skipped, skipped_in_a_row, metrics
    config, config_file   the full configuration as YAML text, and the file it came from

Random numbers need no entry: every iteration draws from generators keyed by (seed, iteration, rank or image).
Files hold tensors, containers, numbers and text only, and are read with `weights_only=True`.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sam_common.errors import UserError
from sam_common.io.files import atomic_path, write_text
from sam_common.io.tensor_files import TORCH, check_state, format_of, read_torch
from sam_common.io.weights import misfits, state_sha256
from sam_common.text import some

LAST = "last_checkpoint"
"""Name of the text file that holds the name of the newest checkpoint of its folder, as Detectron2 writes it."""


def trained_state(model: nn.Module) -> dict[str, Any]:
    """The part of `model.state_dict()` that training changes, tensors on the CPU.

    A module is frozen when it has parameters and none requires a gradient; its buffers and extra state, and those of
    all modules inside, are then frozen as well.
    """
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    prefixes = tuple(_frozen_prefixes(model))
    return {
        key: value.detach().cpu() if isinstance(value, Tensor) else value
        for key, value in _whole_state(model).items()
        if key not in frozen and not key.startswith(prefixes)
    }


def _whole_state(model: nn.Module) -> dict[str, Any]:
    """The state of a model, also of one whose own `state_dict` leaves something out."""
    return nn.Module.state_dict(model)


def _frozen_prefixes(module: nn.Module, prefix: str = "") -> Iterator[str]:
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        yield prefix
        return
    for name, child in module.named_children():
        yield from _frozen_prefixes(child, f"{prefix}{name}.")


def frozen_sha256(model: nn.Module) -> dict[str, str]:
    """SHA-256 of the weights that do not train, one for each child of the model that has any."""
    trained = trained_state(model).keys()
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in _whole_state(model).items():
        if key not in trained and isinstance(value, Tensor):
            parts.setdefault(key.partition(".")[0], {})[key] = value
    return {part: state_sha256(state) for part, state in parts.items()}


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """The contents of a checkpoint file, tensors on the CPU.

    Raises:
        UserError: there is no such file, it is damaged, holds Python objects, or is not a checkpoint.
    """
    if not Path(path).exists():
        raise UserError(f"there is no checkpoint {path}")
    if (found := format_of(path)) != TORCH:
        raise UserError(f"{path} is not a checkpoint: its format is {found}; give the model_final.pth of a training")
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums but does not compare them
            damaged = archive.testzip()
    except Exception as error:  # damaged bytes fail in any way
        raise UserError(f"{path} is not a checkpoint, or was cut off: {_first_line(error)}") from error
    if damaged:
        raise UserError(f"{path} is damaged: the checksum of {damaged} is wrong")
    content = read_torch(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f"{path} is not a checkpoint of this project: it has no entry 'model'")
    check_state(content["model"], str(path), extra=True)
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a run, or None where the run has not written one."""
    pointer = directory / LAST
    return directory / pointer.read_text().strip() if pointer.is_file() else None


def load_trained(model: nn.Module, content: dict[str, Any], source: str, *, frozen: dict[str, str]) -> None:
    """Loads `content["model"]` into the trained part of `model`; `frozen` is `frozen_sha256(model)`.

    Raises:
        UserError: a key is missing, unexpected or of another shape, or the frozen weights are not the ones that the
            file was trained beside. Nothing has been loaded then.
    """
    given = content["model"]
    if found := misfits(trained_state(model), given):
        origin = f"; it was trained with {content['config_file']}" if content.get("config_file") else ""
        raise UserError(f"{source} is for another model: {found}{origin}; use the configuration it was trained with")
    recorded = content.get("frozen_sha256", frozen)
    if recorded != frozen:
        parts = {part for part in recorded.keys() | frozen.keys() if recorded.get(part) != frozen.get(part)}
        part = min(parts)
        raise UserError(
            f"{source} was trained beside other frozen weights: {some(sorted(parts))} (SHA-256 of {part}: file "
            f"{recorded.get(part, 'none')[:12]}, model {frozen.get(part, 'none')[:12]}); give it the same weights"
        )
    model.load_state_dict(given, strict=False)  # all keys were checked; only frozen ones are absent


class Checkpointer:
    """Saves and resumes one run. `model` is the bare model, not the distributed wrapper.

    Attributes:
        frozen: `frozen_sha256(model)`, computed once: frozen weights do not change.
    """

    def __init__(
        self,
        model: nn.Module,
        directory: Path,
        *,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
        config: str = "",
        config_file: str = "",
    ) -> None:
        self.model = model
        self.directory = directory
        self.optimizer = optimizer
        self.scaler = scaler
        self.origin = {"config": config, "config_file": config_file}
        self.frozen = frozen_sha256(model)

    def save(self, name: str, progress: dict[str, Any]) -> Path:
        """Writes `<directory>/<name>.pth`, then points `last_checkpoint` at it; a kill leaves the previous one usable.

        Args:
            progress: the plain entries of the file: iteration, seed, skipped, skipped_in_a_row, metrics.

        Raises:
            UserError: the disk is full or cannot be written to.
        """
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else {},
        }
        path = self.save_weights(name, {**state, **progress})
        write_text(self.directory / LAST, path.name)
        return path

    def save_weights(self, name: str, entries: dict[str, Any]) -> Path:
        """Writes `<directory>/<name>.pth`, which no run goes on from: the trained weights and plain entries.

        Raises:
            UserError: the disk is full or cannot be written to.
        """
        path = self.directory / f"{name}.pth"
        content = {"model": trained_state(self.model), "frozen_sha256": self.frozen, **self.origin, **entries}
        with atomic_path(path) as partial, open(partial, "wb") as file:
            try:
                torch.save(content, file)
            except RuntimeError as error:  # how torch reports a failed write
                raise UserError(f"cannot write {path}: {_first_line(error)}; is the disk full?") from error
            file.flush()
            os.fsync(file.fileno())  # on the disk before it takes the place of a good one
        return path

    def load_weights(self, path: Path) -> None:
        """Restores the trained weights alone. Raises UserError as `read_checkpoint` and `load_trained`."""
        load_trained(self.model, read_checkpoint(path), str(path), frozen=self.frozen)

    def load(self, path: Path) -> dict[str, Any]:
        """Restores model, optimizer and scaler from a file of this run and returns its contents.

        The optimizer's moments come from the file; its learning rate and decay from the configuration, so that a run
        may go on with changed ones.

        Raises:
            UserError: as `read_checkpoint` and `load_trained`, or the optimizer has other groups than the file's.
        """
        content = read_checkpoint(path)
        load_trained(self.model, content, str(path), frozen=self.frozen)
        groups = self.optimizer.state_dict()["param_groups"]
        saved = content.get("optimizer", {})
        if [g["params"] for g in saved.get("param_groups", ())] != [g["params"] for g in groups]:
            raise UserError(f"{path} holds no optimizer state for this model; use it as MODEL.WEIGHTS without --resume")
        self.optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
        if self.scaler is not None and content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        return content
