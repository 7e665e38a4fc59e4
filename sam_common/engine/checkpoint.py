"""Checkpoints: the trained part of a model and what a run needs to go on, in one plain file.

    model            trainable parameters, persistent buffers outside frozen modules, extra state
    frozen_sha256    first name of each frozen part -> SHA-256 of the weights it was trained beside
    optimizer, scaler, seed, and of `Progress`: iteration, skipped, skipped_in_a_row, metrics, losses
    config, config_file   the full configuration as YAML text, and the file it came from

Random numbers need no entry: every iteration draws from generators keyed by (seed, iteration, rank or image).
Files hold tensors, containers, numbers and text only, and are read with `weights_only=True`.
"""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from sam_common.errors import UserError
from sam_common.io.files import atomic_path, write_text
from sam_common.io.tensor_files import TORCH, check_state, format_of, read_torch
from sam_common.io.weights import misfits, state_sha256
from sam_common.text import first_line, shown, some

logger = logging.getLogger(__name__)

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
    if not os.path.exists(path):
        raise UserError(f"there is no checkpoint {path}")
    if (found := format_of(path)) != TORCH:
        raise UserError(f"{path} is not a checkpoint: its format is {found}; give the model_final.pth of a training")
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums but does not compare them
            damaged = archive.testzip()
    except Exception as error:  # damaged bytes fail in any way
        raise UserError(f"{path} is not a checkpoint, or was cut off: {first_line(error)}") from error
    if damaged:
        raise UserError(f"{path} is damaged: the checksum of {damaged} is wrong")
    content = read_torch(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UserError(f"{path} is not a checkpoint of this project: it has no entry 'model'")
    check_state(content["model"], str(path), extra=True)
    for name, is_sound in _ENTRIES.items():
        if name in content and not is_sound(content[name]):
            raise UserError(f"{path} is damaged: its entry {name!r} cannot be {shown(content[name])}")
    return content


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(number, float | int) for number in value.values())


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)


def _are_losses(value: Any) -> bool:
    return isinstance(value, list) and all(map(_are_numbers, value))


def _are_metrics(value: Any) -> bool:
    if not value:
        return value == {}
    kinds = {"iteration": int, "metric": str, "value": float | int}
    if not isinstance(value, dict) or not isinstance(best := value.get("best"), dict) or best.keys() != kinds.keys():
        return False
    return _are_numbers(value.get("last")) and all(isinstance(best[key], kind) for key, kind in kinds.items())


def _has_moments(state: Any, parameter: Tensor) -> bool:
    """Whether it can be AdamW's state of a parameter."""
    if not isinstance(state, dict) or not isinstance(state.get("step"), Tensor | float | int):
        return False
    return all(getattr(state.get(name), "shape", None) == parameter.shape for name in _MOMENTS)


_OF_A_RUN: dict[str, Callable[[Any], bool]] = {
    "iteration": _is_count,
    "seed": _is_count,
    "skipped": _is_count,
    "skipped_in_a_row": _is_count,
    "metrics": _are_metrics,
    "optimizer": _is_dict,
    "scaler": _is_dict,
}
"""Entry that a run needs to go on -> whether it is what it should be."""

_ONLY_WEIGHTS = "give it as MODEL.WEIGHTS without --resume, with another OUTPUT_DIR"
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW

_ENTRIES = {**_OF_A_RUN, "losses": _are_losses, "frozen_sha256": _are_texts, "hooks": _is_dict}


def read_state(path: str | os.PathLike) -> dict[str, Any]:
    """As `read_checkpoint`, of a file that a run goes on from. Raises UserError where it lacks what that needs, too."""
    try:
        content = read_checkpoint(path)
    except UserError as error:
        pointer = Path(path).with_name(LAST)
        raise UserError(f"{error}; to go on from an earlier checkpoint, write its name into {pointer}") from error
    if missing := [name for name in _OF_A_RUN if name not in content]:
        raise UserError(f"{path} has no {some(missing)}, without which no run goes on from it; {_ONLY_WEIGHTS}")
    return content


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint of a run, or None where the run has not written one.

    Raises:
        UserError: `last_checkpoint` does not hold the name of a file.
    """
    pointer = directory / LAST
    if not pointer.is_file():
        if any(directory.glob("model_*.pth")):
            logger.warning("%s, which names the checkpoint to go on from, is missing: those here are not used", pointer)
        return None
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    if name != Path(name).name or not name.isprintable() or not (directory / name).is_file():
        remedy = "write the name of one into it, or delete it to start anew"
        raise UserError(f"{pointer} names no checkpoint that is there: {remedy}")
    return directory / name


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
        self._trained = trained_state(model).keys()

    def trained_buffers(self) -> dict[str, Tensor]:
        """Copies of the buffers that training changes, as a forward does."""
        return {name: buffer.clone() for name, buffer in self.model.named_buffers() if name in self._trained}

    def check_space(self) -> None:
        """Raises UserError where the disk has no room for a checkpoint."""
        tensors = [value for value in trained_state(self.model).values() if isinstance(value, Tensor)]
        if isinstance(self.optimizer, AdamW):
            tensors += len(_MOMENTS) * [p for group in self.optimizer.param_groups for p in group["params"]]
        needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise UserError(
                f"{self.directory} is on a disk with {free / 2**20:.1f} MiB left, and a checkpoint needs "
                f"about {needed / 2**20:.1f}: free some, or choose another OUTPUT_DIR"
            )

    def save(self, name: str, progress: dict[str, Any]) -> Path:
        """Writes `<directory>/<name>.pth`, then points `last_checkpoint` at it; a kill leaves the previous one usable.

        Args:
            progress: the plain entries of the file: seed, and those of `Progress`.

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
            except RuntimeError as error:  # how torch reports a failed write; the reason is its context
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
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
            UserError: as `read_state` and `load_trained`, or the optimizer has other groups than the file's.
        """
        content = read_state(path)
        load_trained(self.model, content, str(path), frozen=self.frozen)
        groups = self.optimizer.state_dict()["param_groups"]
        if not self._fits_optimizer(content["optimizer"], groups):
            raise UserError(f"{path} holds no optimizer state for this model; {_ONLY_WEIGHTS}")
        self.optimizer.load_state_dict({"state": content["optimizer"]["state"], "param_groups": groups})
        if self.scaler is not None and content["scaler"]:
            if content["scaler"].keys() != torch.amp.GradScaler("cpu").state_dict().keys():
                raise UserError(f"{path} holds no scale of the loss that can be read; {_ONLY_WEIGHTS}")
            self.scaler.load_state_dict(content["scaler"])
        return content

    def _fits_optimizer(self, saved: dict[str, Any], groups: list[dict[str, Any]]) -> bool:
        """Whether a saved state has these groups, and moments of the shapes of the parameters that have any."""
        known, state = saved.get("param_groups"), saved.get("state")
        if not isinstance(known, list) or not all(map(_is_dict, known)) or not isinstance(state, dict):
            return False
        if [group.get("params") for group in known] != [group["params"] for group in groups]:
            return False
        parameters = dict(enumerate(p for group in self.optimizer.param_groups for p in group["params"]))
        if not state.keys() <= parameters.keys():
            return False
        return not isinstance(self.optimizer, AdamW) or all(_has_moments(state[i], parameters[i]) for i in state)
